"""hskv dump and load: all or nothing, every kind, and gone on with after a stop."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hskv
from hskv import KeyValueStore
from hskv.cli.bookmark import Bookmark
from hskv.mariadb import PrivateServer
from hskv.store.rows import put_rows, row_pages

from .cli import Shell

Rows = Callable[[], list[tuple[Any, ...]]]


class Own:
    kind = 9

    def dumps(self, value: object) -> bytes:
        return b"\xff\x00own" + repr(value).encode()

    def loads(self, data: bytes) -> bytes:
        return data


@pytest.fixture
def rows(hskv_server: PrivateServer) -> Iterator[Rows]:
    """Every row as it stands; the table has rows of every kind, some with a TTL."""
    options: list[dict[str, Any]] = [
        {},
        {"serializer": "msgpack"},
        {"serializer": "pickle"},
        {"serializer": Own()},
        {"compress_min_bytes": 10},
    ]
    for number, option in enumerate(options):
        with hskv.connect(hskv_server.url, key_type=bytes, **option) as store:
            store.set(b"\xff\x00%d" % number, {"n": [number, None]}, ttl=1000 + number)
            store.set_many({b"%d:%04d" % (number, n): f"text {n} é\n\0" for n in range(500)})
            store.set_many({b"i\t%d" % number: -number, b"b\\%d" % number: b"\x80" * 40})
    with hskv.connect(hskv_server.url) as plain:
        assert plain.lease("nightly", ttl=900, fence=True).acquire()
        plain.limiter("api", limit=5, per=900).hit("ann")
        yield lambda: plain.find(">=", [""], limit=100_000)
        plain.modify(">=", [""], "D", limit=100_000)


def empty(store: KeyValueStore[str, Any]) -> None:
    store.modify(">=", [""], "D", limit=100_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.dump"


def test_every_row_comes_back_as_it_was(
    shell: Shell, hskv_store: KeyValueStore[str, Any], rows: Rows, file: Path
) -> None:
    before = rows()
    said = shell("dump", str(file), "--json")
    assert (said.code, said.json["dumped"]) == (0, len(before)), said
    assert len({row[3] for row in before}) > 9
    assert list(file.parent.iterdir()) == [file]
    empty(hskv_store)
    # What is there is replaced, what is not in the dump stays.
    hskv_store.set_many({"0:0001": "other", "zzz": 1})
    loaded = shell("load", str(file), "--json")
    assert (loaded.code, loaded.json["loaded"]) == (0, len(before))
    assert hskv_store.pop("zzz") == 1
    assert rows() == before
    assert loaded.json["sha256"] == said.json["sha256"]
    assert shell("load", str(file), "--check", "--json").json["sha256"] == said.json["sha256"]
    assert list(file.parent.iterdir()) == [file]


def test_through_a_pipe_and_under_a_prefix(
    shell: Shell, hskv_server: PrivateServer, hskv_store: KeyValueStore[str, Any]
) -> None:
    hskv_store.set_many({"a:1": 1, "a:2": "two", "b": 3})
    data = shell("dump", "--prefix", "a:").out
    shell.export("HSKV_URL", f"{hskv_server.url}&prefix=copy:")
    assert shell("load", stdin=data).code == 0
    assert dict(hskv_store) == {"a:1": 1, "a:2": "two", "b": 3, "copy:a:1": 1, "copy:a:2": "two"}
    assert shell("dump").out.split(b"\n")[1:3] == data.split(b"\n")[1:3]


def test_what_has_no_place_under_a_prefix_is_refused(
    shell: Shell, hskv_server: PrivateServer, hskv_store: KeyValueStore[str, Any]
) -> None:
    hskv_store["x" * 255] = 1
    data = shell("dump").out
    shell.export("HSKV_URL", f"{hskv_server.url}&prefix=p:")
    too_long = shell("load", stdin=data)
    assert (too_long.code, "257 bytes" in too_long.err) == (2, True)
    assert hskv_store.lease("l").acquire()
    shell.export("HSKV_URL", hskv_server.url)
    data = shell("dump").out
    shell.export("HSKV_URL", f"{hskv_server.url}&prefix=p:")
    lease = shell("load", stdin=data)
    assert (lease.code, "without a prefix" in lease.err) == (4, True)
    assert shell("scan").lines == []


def test_rows_that_expired_meanwhile_are_left_out(
    shell: Shell, hskv_store: KeyValueStore[str, Any]
) -> None:
    hskv_store.set("short", 1, ttl=0.3)
    hskv_store.set("long", 2, ttl=100)
    data = shell("dump").out
    hskv_store.clear()
    time.sleep(0.31)
    assert "1 expired" in shell("load", stdin=data).out.decode()
    assert list(hskv_store) == ["long"]
    assert 90 < (hskv_store.ttl("long") or 0) <= 100


def test_half_a_file_is_not_taken_for_a_whole_one(
    shell: Shell, hskv_store: KeyValueStore[str, Any], rows: Rows, file: Path
) -> None:
    shell("dump", str(file))
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    empty(hskv_store)
    for cut in (whole[: len(whole) // 2], b"".join(lines[:-1]), whole[:-1] + b"x", lines[0], b""):
        file.write_bytes(cut)
        for option in ("--check", "--restart"):
            assert shell("load", str(file), option).code == 6
    assert rows() == []
    # Of a stream the end is not known before it comes: what was checked is stored, and told.
    said = shell("load", stdin=b"".join(lines[:-1]))
    assert (said.code, "cut short behind row" in said.err) == (6, True)


def test_damage_is_found_before_the_block_is_stored(
    shell: Shell, hskv_store: KeyValueStore[str, Any], rows: Rows, file: Path
) -> None:
    shell("dump", str(file))
    whole = file.read_bytes()
    empty(hskv_store)
    damaged = whole.replace(b"text 3 ", b"text 4 ", 1)
    assert damaged != whole
    file.write_bytes(damaged)
    said = shell("load", str(file))
    assert (said.code, "damaged behind row 0" in said.err) == (6, True)
    assert rows() == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"hskv_dump": 2}\n', "upgrade"),
        (b"-- MariaDB dump 10.19\n", "no dump of hskv"),
        (b"[1]\n", "no dump of hskv"),
    ],
)
def test_other_files_are_told_apart(shell: Shell, line: bytes, message: str) -> None:
    said = shell("load", stdin=line)
    assert (said.code, message in said.err) == (6, True)


def test_a_dump_that_was_stopped_is_gone_on_with(shell: Shell, rows: Rows, file: Path) -> None:
    whole = shell("dump", "--json").out

    def stopped(*arguments: Any, **options: Any) -> Iterator[Any]:
        for number, page in enumerate(row_pages(*arguments, **options)):
            if number == 12:
                raise KeyboardInterrupt
            yield page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hskv.cli.dump.row_pages", stopped)
        said = shell("dump", str(file))
    assert (said.code, "--resume" in said.err) == (130, True)
    assert said.err.endswith("interrupted\n")
    assert not file.exists()
    part = Path(f"{file}.partial")
    blocks = part.read_bytes().count(b'{"rows"')
    assert blocks >= 1
    # Killed in the middle of a line.
    with part.open("ab") as torn:
        torn.write(b'{"key":"0:00')
    assert shell("dump", str(file)).code == 2
    assert shell("dump", str(file), "--resume", "--prefix", "x").code == 2
    assert shell("dump", str(file), "--resume").code == 0
    # Blocks are cut elsewhere; rows, and the digest at the end, are the same.
    as_rows = [line for line in file.read_bytes().splitlines() if line.startswith(b'{"key')]
    assert as_rows == [line for line in whole.splitlines() if line.startswith(b'{"key')]
    assert file.read_bytes().splitlines()[-1] == whole.splitlines()[-1]
    assert not part.exists()
    assert shell("dump", str(file)).code == 2
    assert shell("dump", str(file), "--overwrite").code == 0
    assert shell("dump", "--resume").code == 2


def test_a_load_that_was_stopped_is_gone_on_with(
    shell: Shell,
    hskv_server: PrivateServer,
    hskv_store: KeyValueStore[str, Any],
    rows: Rows,
    file: Path,
) -> None:
    before = rows()
    shell("dump", str(file))
    empty(hskv_store)
    stored: list[int] = []

    def stopped(store: Any, packet: Any) -> None:
        if len(stored) == 1:
            raise KeyboardInterrupt
        stored.append(len(packet))
        put_rows(store, packet)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hskv.cli.load.put_rows", stopped)
        said = shell("load", str(file))
    assert (said.code, "--resume" in said.err) == (130, True)
    assert len(rows()) == stored[0]
    assert shell("load", str(file)).code == 2
    shell.export("HSKV_URL", f"{hskv_server.url}&prefix=x")
    assert shell("load", str(file), "--resume").code == 2
    shell.export("HSKV_URL", hskv_server.url)
    said = shell("load", str(file), "--resume")
    assert said.code == 0
    assert rows() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_load_is_not_gone_on_with_by_another_file(
    shell: Shell, hskv_store: KeyValueStore[str, Any], file: Path
) -> None:
    hskv_store["a"] = 1
    shell("dump", str(file))
    target = shell("load", str(file))
    assert target.code == 0
    bookmark = Path(f"{file}.loading")
    bookmark.write_text("{")
    assert "cannot be read" in shell("load", str(file), "--resume").err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hskv.cli.load.put_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        shell("load", str(file), "--restart")
    found = {"into": _place(shell, file), "rows": 1, "sha256": "0" * 64}
    bookmark.write_text(json.dumps(found))
    assert "another dump" in shell("load", str(file), "--resume").err
    assert shell("load", str(file), "--restart").code == 0


def _place(shell: Shell, file: Path) -> Any:
    """How a bookmark names this table: as one says that a stopped load leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bookmark, "remove", lambda self: None)
        shell("load", str(file), "--restart")
    return json.loads(Path(f"{file}.loading").read_bytes())["into"]
