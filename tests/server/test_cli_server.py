"""hskv server: it stays when its starter has gone, keeps its data, and is stopped by its lock."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hskv
from hskv.mariadb import supervisor
from hskv.mariadb.programs import ServerStartError

from ..pages import DOCS, ROOT, blocks
from .cli import Shell


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hskv-kept-") as parent:
        Path(parent).chmod(0o755)
        yield Path(parent, "kept")
        supervisor.stop(Path(parent, "kept"), 30.0)


def wait_until_gone(directory: Path) -> None:
    deadline = time.monotonic() + 30.0
    while supervisor.supervisor_pid(directory) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hskv_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hskv", *arguments]


def test_a_server_in_the_background(shell: Shell, directory: Path) -> None:
    at = ("--directory", str(directory))
    assert shell("server", "status", *at).code == 1
    assert shell("server", "stop", *at).code == 0
    # Its starter ends, it stays.
    started = subprocess.run(
        hskv_command("server", "start", "--quiet", *at), capture_output=True, text=True, check=True
    )
    url = started.stdout.strip()
    with hskv.connect(url) as store:
        store["kept"] = "yes"
    assert "***" not in url
    assert (directory / "secret").read_text() not in url
    assert shell("server", "start", "--quiet", *at).out.decode().strip() == url
    found = shell("server", "status", "--json", *at).json
    assert (found["running"], found["url"]) == (True, url)
    shell.export("HSKV_URL", url)
    shell.export("HSKV_SQL", found["sql"])
    assert shell("get", "kept").out == b"yes"
    assert shell("stats", "--json").json["data_bytes"] > 0
    with pytest.raises(ServerStartError, match="runs already"):
        supervisor.run(directory, {}, 20.0, lambda: None)
    # Its supervisor is killed: mariadbd goes with it, and the data is still good.
    os.kill(found["pid"], signal.SIGKILL)
    wait_until_gone(directory)
    assert shell("server", "start", "--quiet", *at).out.decode().strip() == url
    assert shell("get", "kept").out == b"yes"
    assert shell("server", "stop", *at).out == b"stopped; its data stays\n"
    assert shell("server", "status", *at).code == 1
    assert shell("get", "kept").code == 3


@pytest.mark.parametrize("ended_by", ["interrupt", "stop"])
def test_a_server_in_the_foreground(shell: Shell, directory: Path, ended_by: str) -> None:
    at = ("--directory", str(directory))
    command = hskv_command("server", "run", *at)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("MariaDB runs until Ctrl-C")
        assert process.stdout.readline().startswith("export HSKV_URL=")
        if ended_by == "interrupt":
            process.send_signal(signal.SIGINT)
        else:
            assert shell("server", "stop", *at).code == 0
        assert process.stdout.read().endswith("stopped; its data stays\n")
    assert process.returncode == 0
    assert (directory / "data").is_dir()


def test_the_readme_and_the_page_start_a_server_as_they_say(directory: Path) -> None:
    mine = "tests/server/test_cli_server.py"
    written = [
        block.text
        for page in (ROOT / "README.md", DOCS / "cli.md")
        for block in blocks(page)
        if block.elsewhere == mine
    ]
    assert len(written) == 2
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_DATA_HOME": str(directory.parent)}
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "".join(written)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    finally:
        supervisor.stop(directory.parent / "hskv", 30.0)
    assert "1\nsession\tabc\nvisits\t1\nstopped; its data stays\n" in done.stdout


def test_a_server_that_cannot_start_says_why(
    shell: Shell, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = directory.parent / "full"
    full.mkdir()
    (full / "file").touch()
    refused = shell("server", "start", "--directory", str(full))
    assert (refused.code, "something else" in refused.err) == (3, True)
    long = directory.parent / ("x" * 100)
    assert "too long" in shell("server", "start", "--directory", str(long)).err
    assert shell("server", "start", "--set", "nonsense").code == 2
    at = ("--directory", str(directory))
    wrong = shell("server", "start", "--set", "no_such_setting=1", *at)
    assert (wrong.code, "no_such_setting=1" in wrong.err) == (3, True)
    assert (directory / "secret").read_text() not in wrong.err
    monkeypatch.setenv("HSKV_MARIADBD", "no-such-program")
    missing = shell("server", "start", *at)
    assert (missing.code, "install" in missing.err) == (3, True)
