"""What the command says when something is wrong: exit codes, no traceback, no secret."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from .cli import Shell

Store = KeyValueStore[str, Any]


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        (None, 2, "no server is named"),
        ("redis://127.0.0.1/0", 2, "a URL begins with"),
        ("hskv://:geheim@127.0.0.1:1,2/hskv", 3, "cannot connect"),
        ("hskv+unix:///hskv?read=/r.sock&write=/w.sock&secret_file=/no", 3, "cannot connect"),
    ],
)
def test_a_server_that_cannot_be_had(
    shell: Shell, url: str | None, code: int, message: str
) -> None:
    shell.export("HSKV_URL", url)
    said = shell("get", "a")
    assert (said.code, message in said.err) == (code, True), said.err
    assert "geheim" not in said.err
    assert "Traceback" not in said.err


def test_a_wrong_secret_and_a_missing_table(shell: Shell, hskv_server: PrivateServer) -> None:
    wrong = hskv_server.url.replace(hskv_server.secret, "geheim")
    shell.export("HSKV_URL", wrong)
    said = shell("get", "a")
    assert (said.code, "geheim" in said.err) == (4, False)
    shell.export("HSKV_URL", hskv_server.url.replace("/hskv/kv", "/hskv/no_such_table_cli"))
    assert shell("get", "a").code == 4


def test_secrets_on_the_command_line_are_warned_of(
    shell: Shell, hskv_server: PrivateServer, tmp_path: Path
) -> None:
    shell.export("HSKV_URL", None)
    said = shell("scan", "--url", hskv_server.url)
    assert (said.code, "list of processes" in said.err) == (0, True)
    assert hskv_server.secret not in said.err
    file = tmp_path / "url"
    file.touch(mode=0o600)
    file.write_text(f"{hskv_server.url}\n")
    assert shell("scan", "--url-file", str(file)) == (0, b"", "")
    assert shell("--url-file", str(file), "scan") == (0, b"", "")
    file.chmod(0o644)
    assert "chmod 600" in shell("scan", "--url-file", str(file)).err


def test_sql_may_be_named_by_options(shell: Shell, tmp_path: Path) -> None:
    url = os.environ["HSKV_SQL"]
    shell.export("HSKV_SQL", None)
    file = tmp_path / "sql"
    file.touch(mode=0o600)
    file.write_text(url)
    for options in (("--sql", url), ("--sql-file", str(file))):
        said = shell("stats", "--json", *options)
        assert (said.code, said.err) == (0, "")
        assert "data_bytes" in said.json
    said = shell("stats", "--sql", "mysql://u:geheim@127.0.0.1:1/")
    assert (said.code, "list of processes" in said.err, "geheim" in said.err) == (3, True, False)
    assert shell("stats", "--sql", "postgres://u@h/").code == 2


def test_a_host_of_sql_that_is_away_is_passed_over(shell: Shell) -> None:
    with PrivateServer(sql_tcp=True) as server:
        shell.export("HSKV_URL", server.url)
        shell.export("HSKV_SQL", server.sql_url.replace("@", "@127.0.0.1:1,"))
        assert "data_bytes" in shell("stats", "--json").json


def process(server: PrivateServer, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "hskv", *arguments],
        env={**os.environ, "HSKV_URL": server.url},
        stderr=subprocess.PIPE,
        **options,
    )


def test_who_reads_the_output_may_end(hskv_server: PrivateServer, hskv_store: Store) -> None:
    hskv_store.set_many({f"{n:05}": "x" * 100 for n in range(5000)})
    with process(hskv_server, "scan", stdout=subprocess.PIPE) as scan:
        assert scan.stdout is not None
        assert scan.stderr is not None
        assert scan.stdout.readline().startswith(b"00000")
        scan.stdout.close()
        assert scan.stderr.read() == b""
    assert scan.returncode == 141


def test_an_interrupt(hskv_server: PrivateServer) -> None:
    with process(hskv_server, "set", "a", stdin=subprocess.PIPE) as waiting:
        assert waiting.stderr is not None
        # It waits for its value: by now it has been imported, or else it ends by the signal.
        while "pipe" not in Path(f"/proc/{waiting.pid}/wchan").read_text():
            assert waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        assert waiting.stderr.read().strip() == b"interrupted"
    assert waiting.returncode == 130


def test_nothing_that_upsets_a_terminal_is_printed_to_one(
    hskv_server: PrivateServer, hskv_store: Store
) -> None:
    hskv_store["a"] = "\x1b]0;title\x07 1\t2\nline"
    hskv_store["long"] = "x" * 1000
    theirs, ours = pty.openpty()
    with process(hskv_server, "get", "a", stdout=ours) as get:
        pass
    with process(hskv_server, "scan", stdout=ours) as scan:
        pass
    assert (get.returncode, scan.returncode) == (0, 0)
    shown = os.read(theirs, 10_000).decode().replace("\r\n", "\n")
    os.close(theirs)
    os.close(ours)
    assert shown.startswith("\\x1b]0;title\\x07 1\t2\nline\n")
    assert max(map(len, shown.splitlines())) < 80


def test_without_its_extra_it_says_what_to_install() -> None:
    script = "import sys; sys.modules['click'] = None; from hskv.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == "the command hskv needs click, of its extra: pip install 'hskv[cli]'\n"


def test_every_command_has_help(shell: Shell) -> None:
    said = shell("--help")
    assert said.code == 0
    for line in said.out.decode().split("Commands:\n")[1].splitlines():
        name = line.split()[0]
        assert shell(name, "--help").code == 0
        assert name in line
    assert shell("no-such-command").code == 2
