"""Each finding of the doctor about the table: provoked, and gone after its advice was followed."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import hskv
from hskv import Table
from hskv.mariadb.doctor import Where
from hskv.mariadb.doctor.catalogue import CATALOGUE

from .patients import Patient, ids, of

STANDARD: Final = Table("THE").create_sql()

# What is done to a table of the standard form, by the finding.
BROKEN: Final[dict[str, tuple[str, ...]]] = {
    "table-missing": ("DROP TABLE THE",),
    "table-view": ("DROP TABLE THE", "CREATE VIEW THE AS SELECT * FROM kv"),
    "table-partitioned": ("ALTER TABLE THE PARTITION BY KEY (k) PARTITIONS 2",),
    "table-versioned": ("ALTER TABLE THE ADD SYSTEM VERSIONING",),
    "table-engine": ("ALTER TABLE THE MODIFY v VARBINARY(9) NOT NULL, ENGINE=MEMORY",),
    "table-trigger": ("CREATE TRIGGER THE_t BEFORE INSERT ON THE FOR EACH ROW SET NEW.n = 1",),
    "table-check": ("ALTER TABLE THE ADD CONSTRAINT small CHECK (n < 9)",),
    "table-check of a column": ("ALTER TABLE THE ADD w INT NOT NULL DEFAULT 5 CHECK (w > 1)",),
    "table-check of a column of JSON": ("ALTER TABLE THE ADD w JSON NULL",),
    "table-unique": ("ALTER TABLE THE ADD w INT NULL UNIQUE",),
    "column-missing": ("ALTER TABLE THE DROP COLUMN n",),
    "column-missing, with its index": ("ALTER TABLE THE DROP COLUMN expires",),
    "column-generated": ("ALTER TABLE THE ADD w INT AS (n + 1) STORED",),
    "column-auto-increment": (
        "ALTER TABLE THE ADD w INT NOT NULL AUTO_INCREMENT, ADD INDEX w (w)",
    ),
    "column-default": ("ALTER TABLE THE ADD w VARCHAR(36) NOT NULL DEFAULT (UUID())",),
    "column-default of a time": (
        "ALTER TABLE THE ADD w TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP",
    ),
    "column-null of the value": ("ALTER TABLE THE MODIFY v LONGBLOB NULL",),
    "column-null of a number": ("ALTER TABLE THE MODIFY n BIGINT NULL",),
    "key-index": ("ALTER TABLE THE DROP PRIMARY KEY",),
    "key-index of two columns": ("ALTER TABLE THE DROP PRIMARY KEY, ADD PRIMARY KEY (k, n)",),
    "key-type": ("ALTER TABLE THE MODIFY k VARCHAR(100) CHARACTER SET utf8mb4 NOT NULL",),
    "key-type of an exact text": (
        "ALTER TABLE THE MODIFY k VARCHAR(255) COLLATE utf8mb4_nopad_bin NOT NULL",
    ),
    "key-type of a number": ("ALTER TABLE THE MODIFY k BIGINT NOT NULL",),
    "key-width": ("ALTER TABLE THE MODIFY k VARBINARY(64) NOT NULL",),
    "value-type": ("ALTER TABLE THE MODIFY v VARCHAR(99) CHARACTER SET latin1 NOT NULL",),
    "value-type of a text": ("ALTER TABLE THE MODIFY v LONGTEXT CHARACTER SET utf8mb4 NOT NULL",),
    "value-width": ("ALTER TABLE THE MODIFY v BLOB NOT NULL",),
    "number-type": ("ALTER TABLE THE MODIFY n INT NOT NULL",),
    "number-type of a time": ("ALTER TABLE THE MODIFY expires DATETIME NOT NULL",),
    "expires-index": ("ALTER TABLE THE DROP INDEX expires",),
    "expires-index-descending": (
        "ALTER TABLE THE DROP INDEX expires, ADD INDEX later (expires DESC)",
    ),
}

# What HandlerSocket must not open, or cannot.
DEADLY: Final = ("table-missing", "table-view", "table-partitioned", "table-engine")
# What it can tell of a table that it may open.
WITHOUT_SQL: Final = ("column-missing", "key-index", "expires-index")


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    with Patient() as patient:
        yield patient


def named(case: str) -> str:
    """The name of the finding, of a case of it."""
    return re.split(" of |, ", case)[0]


@pytest.fixture
def broken(patient: Patient, request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Makes a table of a name of its own, and breaks it."""
    made: list[str] = []

    def make(case: str) -> str:
        name = "t_" + re.sub(r"\W", "_", case)
        made.append(name)
        for statement in (STANDARD, *BROKEN[case]):
            patient.ask(statement.replace("THE", name))
        patient.client_url = patient.url.replace("/hskv/kv?", f"/hskv/{name}?")
        return name

    yield make
    for name in made:
        patient.ask(f"DROP VIEW IF EXISTS {name}_view")
        patient.ask(f"DROP TABLE IF EXISTS {name}")
    patient.recover()


@pytest.mark.parametrize("case", BROKEN)
def test_a_table_that_is_broken(patient: Patient, broken: Callable[[str], str], case: str) -> None:
    broken(case)
    report = patient.examine()
    if not report.healthy:
        assert report.why_not("table") == "the table has faults"
    patient.treat(of(report, named(case)))
    report = patient.examine()
    assert named(case) not in ids(report)
    while report.findings:
        patient.treat(report.sorted())
        before, report = report, patient.examine()
        assert report.findings != before.findings
    with hskv.connect(patient.client_url) as store:
        store.check()
        store["a"] = b"\x00" * 70_000
        assert store["a"] == b"\x00" * 70_000


@pytest.mark.parametrize("case", DEADLY)
def test_without_sql_no_table_is_opened_that_is_none(
    patient: Patient, broken: Callable[[str], str], case: str
) -> None:
    broken(case)
    report = patient.examine(by_sql=False)
    assert report.why_not("table") == "only SQL can tell that the table is there, and is no view"
    assert report.findings == []
    assert patient.ask("SELECT 1") == ((1,),)


@pytest.mark.parametrize("case", WITHOUT_SQL)
def test_what_handlersocket_itself_tells(
    patient: Patient, broken: Callable[[str], str], case: str
) -> None:
    broken(case)
    patient.treat(of(patient.examine(by_sql=False), named(case)))
    assert named(case) not in ids(patient.examine(by_sql=False))


def test_a_database_that_is_not_there(patient: Patient) -> None:
    patient.client_url = patient.url.replace("/hskv/kv?", "/elsewhere/kv?")
    report = patient.examine()
    assert ids(report) == {"table-missing"}
    patient.treat(report.findings)
    assert patient.examine().verdict == "healthy"
    patient.recover()


def test_a_table_that_a_store_takes_for_another(patient: Patient) -> None:
    table = Table("mapped", key="id", value="data", expires=None, kind=None, key_bytes=20)
    patient.ask("CREATE TABLE mapped (id VARBINARY(10) NOT NULL PRIMARY KEY, data BLOB NOT NULL)")
    report = patient.examine(table=table)
    assert ids(report) == {"column-missing"}
    patient.treat(report.findings)
    report = patient.examine(table=table)
    assert ids(report) == {"key-width", "value-width"}
    patient.treat(report.findings)
    assert patient.examine(table=table).findings == []


PAGE: Final = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
TESTS: Final = [Path(__file__), Path(__file__).with_name("test_doctor.py")]
TESTS_OF_CLUSTERS: Final = Path(__file__).parents[1] / "cluster"


def test_the_page_lists_each_finding_and_no_other() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (.*) \|$", PAGE, flags=re.MULTILINE)
    assert rows == [(name, *entry[:2]) for name, entry in CATALOGUE.items()]


def test_every_finding_has_a_test() -> None:
    files = [*TESTS, *TESTS_OF_CLUSTERS.glob("test_doctor*.py")]
    text = "".join(file.read_text() for file in files)
    there = {named(case) for case in BROKEN}
    assert [name for name in CATALOGUE if name not in there and f'"{name}"' not in text] == []


def test_the_page_of_each_finding_is_there() -> None:
    root = Path(__file__).parents[2]
    assert [entry.page for entry in CATALOGUE.values() if not (root / entry.page).exists()] == []


def test_every_place_where_a_mend_goes_is_explained() -> None:
    assert [where for where in Where if f"`{where}`" not in PAGE] == []
