"""mariadb-backup, as docs/backups.md shows it, while a client writes."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import hskv
from hskv.mariadb import PrivateServer
from hskv.mariadb.process import give_to_server_user

from ..pages import DOCS, blocks

pytestmark = [pytest.mark.stress, pytest.mark.timeout(180)]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the server's user may pass."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


def backup(arguments: str, target: Path, *more: str) -> None:
    """Runs it with the arguments of the page, but for the directory."""
    assert shutil.which("mariadb-backup"), "mariadb-backup is missing: `make stress` installs it"
    words = arguments.replace("/backup/full", str(target)).split()
    done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_copy_of_the_files_has_what_was_acknowledged_when_it_began(directory: Path) -> None:
    block = next(one for one in blocks(DOCS / "backups.md") if "mariadb-backup" in one.text)
    make, prepare = block.text.splitlines()
    target, data = directory / "full", directory / "data"
    done, written = threading.Event(), list[str]()
    with PrivateServer() as server, hskv.connect(server.url) as store:

        def write() -> None:
            while not done.is_set():
                key = f"w{len(written):08}"
                store[key] = len(written)
                written.append(key)

        thread = threading.Thread(target=write)
        thread.start()
        done.wait(1.0)
        before = len(written)
        login = (f"--socket={server.sql['unix_socket']}", "--user=root")
        backup(make, target, *login, f"--datadir={server.datadir}")
        after = len(written) + 1
        done.set()
        thread.join()
    backup(prepare, target)
    backup("mariadb-backup --move-back --target-dir=/backup/full", target, f"--datadir={data}")
    for path in (data, *data.rglob("*")):
        give_to_server_user(path)
    with PrivateServer(data) as restored, hskv.connect(restored.url) as store:
        keys = list(store)
        assert before <= len(keys) <= after
        assert keys == [f"w{number:08}" for number in range(len(keys))]
        store.check()
