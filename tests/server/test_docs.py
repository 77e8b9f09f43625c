"""The code blocks of the documentation, run on the real server, page by page.

A page is one session: its blocks run in order, and names, files and tables go on from one to the
next. They run on a server that was started with the my.cnf of docs/server.md. A block of text
below one that prints is what it prints.
"""

import configparser
import doctest
import gc
import inspect
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import hskv
from hskv import Client, KeyValueStore
from hskv.mariadb import PrivateServer

from ..pages import DOCS, ROOT, Block, blocks, pages

BESIDE = (DOCS / "redis-and-pymemcache.md").read_text()
SERVER = DOCS / "server.md"
# Where the documentation says that the server listens.
PORTS = ("9998", "9999")
SOCKET = "/run/mysqld/mysqld.sock"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

pytestmark = pytest.mark.timeout(150)


def settings(block: Block) -> dict[str, str | int | None]:
    """What a my.cnf sets, without what each server has of its own."""
    parser = configparser.ConfigParser(inline_comment_prefixes=("#",), interpolation=None)
    parser.read_string(block.text)
    found: dict[str, str | int | None] = dict(parser["mariadb"])
    ours = ("handlersocket_address", "handlersocket_port", "handlersocket_port_wr")
    return {name: value for name, value in found.items() if name not in ours}


@pytest.fixture(scope="module")
def docs_server(hskv_server: PrivateServer) -> Iterator[PrivateServer]:
    # The suite's own is asked for since it knows what to do where there is no MariaDB.
    first = next(block for block in blocks(SERVER) if block.language == "ini")
    with PrivateServer(tcp=True, options=settings(first)) as server:
        yield server


def clients() -> list[Client]:
    """All there are: a page need not close what it opened, in regions and storages at that."""
    return [thing for thing in gc.get_objects() if isinstance(thing, Client)]


class Session:
    """What a reader has who follows a page: a Python prompt, a shell in a directory, SQL."""

    def __init__(self, server: PrivateServer, directory: Path) -> None:
        self._server = server
        self._directory = directory
        self._printed = ""
        self._before = set(map(id, clients()))
        self.store = hskv.connect(server.url)
        self._names = {"hskv": hskv, "store": self.store, "__name__": "__main__"}
        login = f"[client]\nsocket = {server.sql['unix_socket']}\nuser = root\n"
        (directory / ".my.cnf").write_text(login)

    def run(self, block: Block) -> None:
        block = block._replace(text=self._located(block.text))
        if block.file:
            (self._directory / block.file).write_text(block.text)
        else:
            getattr(self, f"_{block.language}")(block)

    def close(self) -> None:
        """Closes what the page left open: the next page may want to change tables."""
        for client in clients():
            if id(client) not in self._before:
                client.close()

    def _located(self, text: str) -> str:
        found = re.search(r":(\d+),(\d+)/", self._server.url)
        assert found
        listening = dict(zip(PORTS, found.groups(), strict=True))
        listening[SOCKET] = self._server.sql["unix_socket"]
        return re.sub("|".join(listening), lambda place: listening[place[0]], text)

    def _python(self, block: Block) -> None:
        # Filled up with lines, so that a traceback names that of the page.
        code = compile("\n" * (block.line - 1) + block.text, block.page, "exec")
        with redirect_stdout(io.StringIO()) as printed:
            exec(code, self._names)
        self._printed = printed.getvalue()

    def _pycon(self, block: Block) -> None:
        parser = doctest.DocTestParser()
        example = parser.get_doctest(block.text, self._names, block.place, None, block.line - 1)
        results = doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(
            example, clear_globs=False
        )
        self._names.update(example.globs)
        assert results.attempted > 0
        assert results.failed == 0, f"{block.place}: see above"

    def _sh(self, block: Block) -> None:
        self._command(block, ["bash", "-euo", "pipefail", "-c", block.text])

    def _sql(self, block: Block) -> None:
        self._command(block, ["mariadb", "--table", "hskv", "-e", block.text])

    def _ini(self, block: Block) -> None:
        if block.page == SERVER:
            return
        with PrivateServer(options=settings(block)) as server, hskv.connect(server.url) as store:
            store.check()

    def _text(self, block: Block) -> None:
        same = doctest.OutputChecker().check_output(block.text, self._printed, FLAGS)
        assert same, f"{block.place} is not what was printed:\n{self._printed}"

    def _command(self, block: Block, command: list[str]) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        done = subprocess.run(
            command,
            cwd=self._directory,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, f"{block.place}: {done.stdout}{done.stderr}"
        self._printed = done.stdout


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if not block.reason and not block.elsewhere]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=str(page.relative_to(ROOT).with_suffix("")))
        for page in pages()
        if runnable(page)
    ],
)
def test_the_blocks_of_a_page_do_what_it_says(
    page: Path, docs_server: PrivateServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HSKV_URL", docs_server.url)
    monkeypatch.setenv("HOME", str(tmp_path))
    session = Session(docs_server, tmp_path)
    try:
        session.store.modify(">=", [""], "D", limit=2**32 - 1)
        for block in runnable(page):
            session.run(block)
    finally:
        session.close()


def test_every_method_of_a_store_is_on_the_page() -> None:
    methods = [name for name, _ in inspect.getmembers(KeyValueStore) if not name.startswith("_")]
    own = {"client", "table", "key_type", "keys", "update", "close", "computing"}
    missing = [name for name in methods if name not in own and f"{name}" not in BESIDE]
    assert missing == []


def test_no_method_on_the_page_is_missing() -> None:
    calls = re.findall(r"^\| `(?:\w+\.)?(\w+)\(", BESIDE, flags=re.MULTILINE)
    assert len(calls) > 20
    for call in set(calls) - {"len"}:
        assert hasattr(KeyValueStore, call) or hasattr(Client, call), call
