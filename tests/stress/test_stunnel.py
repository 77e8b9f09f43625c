"""The configuration of a TLS tunnel in examples/stunnel, tried with stunnel itself."""

import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import hskv
from hskv.mariadb import PrivateServer
from hskv.transport.address import load_settings

CONFIGURATIONS = Path(__file__).parents[2] / "examples" / "stunnel"
START_SECONDS = 10.0

pytestmark = pytest.mark.stress


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def stunnel(configuration: Path, changes: dict[str, str], directory: Path) -> Iterator[None]:
    """A tunnel as the file says, but for ports and paths, once it accepts."""
    program = shutil.which("stunnel4") or shutil.which("stunnel")
    assert program, "stunnel is missing: `make stress` installs it"
    text = configuration.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = directory / configuration.name
    file.write_text(text)
    with (directory / "log").open("wb") as log, subprocess.Popen([program, file], stderr=log) as it:
        try:
            for line in text.splitlines():
                if line.startswith("accept"):
                    wait_for(int(line.rpartition(":")[2]))
            yield
        finally:
            it.terminate()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.05)


@contextmanager
def tunnel(server: PrivateServer, directory: Path, far_key: str, near_key: str) -> Iterator[str]:
    """Both ends, each with its key; the URL of a store behind them."""
    settings = load_settings(server.url)
    far, near = (free_port(), free_port()), (free_port(), free_port())
    with ExitStack() as stack:
        for name, key, changes in (
            (
                "server",
                far_key,
                {
                    f"0.0.0.0:{19998}": f"127.0.0.1:{far[0]}",
                    f"0.0.0.0:{19999}": f"127.0.0.1:{far[1]}",
                    "127.0.0.1:9998": str(settings.readers[0]),
                    "127.0.0.1:9999": str(settings.writers[0]),
                },
            ),
            (
                "client",
                near_key,
                {
                    "127.0.0.1:9998": f"127.0.0.1:{near[0]}",
                    "127.0.0.1:9999": f"127.0.0.1:{near[1]}",
                    "DATABASE-HOST:19998": f"127.0.0.1:{far[0]}",
                    "DATABASE-HOST:19999": f"127.0.0.1:{far[1]}",
                },
            ),
        ):
            end = directory / name
            end.mkdir()
            (end / "psk").write_text(f"hskv:{key}\n")
            (end / "psk").chmod(0o600)
            changes["/etc/stunnel/hskv.psk"] = str(end / "psk")
            stack.enter_context(stunnel(CONFIGURATIONS / f"{name}.conf", changes, end))
        user = f":{server.secret}@127.0.0.1:{near[0]},{near[1]}"
        yield f"hskv://{user}/hskv?write_secret={server.write_secret}"


def test_a_store_works_through_the_tunnel(tcp_server: PrivateServer, tmp_path: Path) -> None:
    key = secrets.token_hex(32)
    with tunnel(tcp_server, tmp_path, key, key) as url, hskv.connect(url) as store:
        store["greeting"] = "x" * 1_000_000
        assert store["greeting"] == "x" * 1_000_000
        assert store.incr("visits") == 1
        store.clear()


def test_another_key_gets_no_answer(tcp_server: PrivateServer, tmp_path: Path) -> None:
    keys = secrets.token_hex(32), secrets.token_hex(32)
    with (
        tunnel(tcp_server, tmp_path, *keys) as url,
        hskv.connect(url, timeout=1) as store,
        pytest.raises(hskv.exceptions.ConnectionError),
    ):
        store["greeting"] = "hello"
