"""The imports of every module against the order of the house."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A module may import only from modules above it.
ORDER = [
    "hskv.exceptions",
    "hskv.wire",
    "hskv.wire._codec",
    "hskv.wire.codec",
    "hskv.wire.requests",
    "hskv.wire.replies",
    "hskv.transport",
    "hskv.transport.fork",
    "hskv.transport.interrupt",
    "hskv.transport.endpoint",
    "hskv.transport.dial",
    "hskv.transport.pairs",
    "hskv.transport.tls",
    "hskv.transport.sql_address",
    "hskv.transport.address",
    "hskv.transport.channel",
    "hskv.transport.pool",
    "hskv.transport.pools",
    "hskv.transport.sql_errors",
    "hskv.transport.sql_socket",
    "hskv.transport.sql_tls",
    "hskv.transport.sql_channel",
    "hskv.transport.sql_servers",
    "hskv.transport.checkup",
    "hskv.transport.health",
    "hskv.transport.servers",
    "hskv.transport.primary",
    "hskv.transport.retry",
    "hskv.observed",
    "hskv.sql",
    "hskv.lookups",
    "hskv.exchange",
    "hskv.pipeline",
    "hskv.client",
    "hskv.sockets",
    "hskv.manager",
    "hskv.store",
    "hskv.store.table",
    "hskv.store.schema",
    "hskv.store.faults",
    "hskv.store.inspection",
    "hskv.store.versions",
    "hskv.store.expiry",
    "hskv.store.serializers",
    "hskv.store.keys",
    "hskv.store.verbs",
    "hskv.store.values",
    "hskv.store.plans",
    "hskv.store.handlersocket",
    "hskv.store.sql_text",
    "hskv.store.sql",
    "hskv.store.mapped",
    "hskv.store.guard",
    "hskv.store.executors",
    "hskv.store.lease",
    "hskv.store.outage",
    "hskv.store.strategies",
    "hskv.store.ratelimit",
    "hskv.store.mapping",
    "hskv.store.memo",
    "hskv.store.base",
    "hskv.store.single",
    "hskv.store.batches",
    "hskv.store.counting",
    "hskv.store.ranges",
    "hskv.store.shared",
    "hskv.store.raw",
    "hskv.store.store",
    "hskv.store.rows",
    "hskv.integrations",
    "hskv.integrations.arguments",
    "hskv.integrations.dogpile",
    "hskv.integrations.limits",
    "hskv.mariadb.programs",
    "hskv.mariadb.process",
    "hskv.mariadb.files",
    "hskv.mariadb.server",
    "hskv.mariadb.kept",
    "hskv.mariadb.supervisor",
    "hskv.mariadb.cluster",
    "hskv.mariadb.replication",
    "hskv.mariadb.galera",
    "hskv.mariadb.writable",
    "hskv.mariadb.ddl",
    "hskv.mariadb.doctor.catalogue",
    "hskv.mariadb.doctor.findings",
    "hskv.mariadb.doctor.target",
    "hskv.mariadb.doctor.urls",
    "hskv.mariadb.doctor.server",
    "hskv.mariadb.doctor.settings",
    "hskv.mariadb.doctor.copies",
    "hskv.mariadb.doctor.listeners",
    "hskv.mariadb.doctor.ports",
    "hskv.mariadb.doctor.tables",
    "hskv.mariadb.doctor.traffic",
    "hskv.mariadb.doctor.examination",
    "hskv.mariadb.doctor",
    "hskv.mariadb",
    "hskv",
    "hskv.cli",
    "hskv.cli.exits",
    "hskv.cli.consoles",
    "hskv.cli.sql",
    "hskv.cli.app",
    "hskv.cli.options",
    "hskv.cli.keys",
    "hskv.cli.values",
    "hskv.cli.input",
    "hskv.cli.items",
    "hskv.cli.counters",
    "hskv.cli.scan",
    "hskv.cli.dumpfile",
    "hskv.cli.bookmark",
    "hskv.cli.progress",
    "hskv.cli.dump",
    "hskv.cli.load",
    "hskv.cli.table",
    "hskv.cli.settings",
    "hskv.cli.init",
    "hskv.cli.stats",
    "hskv.cli.bench",
    "hskv.cli.drain",
    "hskv.cli.server",
    "hskv.cli.doctor",
    "hskv.cli.commands",
    "hskv.cli.main",
    "hskv.__main__",
    "hskv.pytest_plugin",
]

# What hskv.wire must do without.
NOT_IN_WIRE = {"asyncio", "logging", "select", "socket", "ssl", "threading", "time"}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, *, is_package: bool, known: set[str]) -> Iterator[str]:
    """The modules that a source imports, anywhere in it; relative names made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")
                package = package[: len(package) - node.level + is_package]
                base = ".".join([*package, base] if base else package)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in known else base


def breaches(sources: dict[Path, str], root: Path) -> list[str]:
    """Every import that goes against the order, as "importer -> imported"."""
    names = {path: module_name(path, root) for path in sources}
    known = set(names.values()) | set(ORDER)
    found = [f"{name} is not in the list" for name in names.values() if not listed(name)]
    for path, source in sources.items():
        name = names[path]
        targets = imported(source, name, is_package=path.name == "__init__.py", known=known)
        found += [f"{name} -> {target}" for target in targets if not allowed(name, target)]
    return found


def listed(name: str) -> bool:
    return name in ORDER or name.partition(".")[0] == "hskv_fast"


def allowed(name: str, target: str) -> bool:
    top = target.partition(".")[0]
    if name.startswith("hskv.wire") and top in NOT_IN_WIRE:
        return False
    if top != "hskv":
        return True
    if name.startswith("hskv_fast") or name not in ORDER or target not in ORDER:
        return False
    return name == "hskv" or ORDER.index(target) < ORDER.index(name)


def test_no_module_imports_against_the_order() -> None:
    files = [*(ROOT / "hskv").rglob("*.py"), *(ROOT / "hskv_fast").rglob("*.py")]
    assert len(files) > 20
    assert breaches({file: file.read_text() for file in files}, ROOT) == []


def test_the_compiled_codec_imports_nothing_of_hskv() -> None:
    for file in (ROOT / "hskv_fast").rglob("*.pyx"):
        lines = [line.split() for line in file.read_text().splitlines()]
        assert not [
            words
            for words in lines
            if words[:1] in (["import"], ["from"], ["cimport"]) and words[1].split(".")[0] == "hskv"
        ]


@pytest.mark.parametrize(
    ("path", "source", "breach"),
    [
        ("hskv/wire/codec.py", "import hskv.client", "hskv.wire.codec -> hskv.client"),
        (
            "hskv/wire/requests.py",
            "def f():\n    from ..transport.pool import ChannelPool",
            "hskv.wire.requests -> hskv.transport.pool",
        ),
        ("hskv/wire/replies.py", "import socket", "hskv.wire.replies -> socket"),
        ("hskv/wire/_codec.py", "from time import time", "hskv.wire._codec -> time"),
        ("hskv/wire/codec.py", "import logging.config", "hskv.wire.codec -> logging.config"),
        ("hskv/wire/codec.py", "from . import replies", "hskv.wire.codec -> hskv.wire.replies"),
        ("hskv/store/plans.py", "from .store import x", "hskv.store.plans -> hskv.store.store"),
        ("hskv/store/plans.py", "from hskv import Client", "hskv.store.plans -> hskv"),
        ("hskv/client.py", "from .store import plans", "hskv.client -> hskv.store.plans"),
        ("hskv/client.py", "from . import client", "hskv.client -> hskv.client"),
        ("hskv/store/__init__.py", "from .store import x", "hskv.store -> hskv.store.store"),
        ("hskv/newcomer.py", "", "hskv.newcomer is not in the list"),
        ("hskv/client.py", "import hskv.newcomer", "hskv.client -> hskv.newcomer"),
        ("hskv_fast/__init__.py", "import hskv.exceptions", "hskv_fast -> hskv.exceptions"),
    ],
)
def test_a_breach_of_the_order_is_found(path: str, source: str, breach: str) -> None:
    assert breaches({ROOT / path: source}, ROOT) == [breach]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("hskv/__init__.py", "from .store.store import x\nfrom .client import Client"),
        ("hskv/store/__init__.py", "import hskv.client"),
        ("hskv/mariadb/__init__.py", "from .server import PrivateServer"),
        ("hskv/client.py", "from .wire import requests\nfrom .exceptions import x\nimport time"),
        ("hskv/wire/codec.py", "import importlib, os\nfrom ..exceptions import x"),
        ("hskv_fast/__init__.py", "import sys"),
    ],
)
def test_imports_along_the_order_are_let_through(path: str, source: str) -> None:
    assert breaches({ROOT / path: source}, ROOT) == []


def test_importing_hskv_loads_nothing_outside_the_standard_library() -> None:
    script = (
        "import sys; before = set(sys.modules); import hskv; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    # What Cython's modules have in common is a module too.
    loaded = {name for name in done.stdout.split() if "cython_" not in name}
    assert "hskv" in loaded
    assert loaded - sys.stdlib_module_names - {"hskv", "hskv_fast"} == set()
