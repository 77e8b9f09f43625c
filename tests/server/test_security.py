"""What the security page says of the server."""

import socket
import stat

import hskv
from hskv.mariadb import PrivateServer
from hskv.transport.address import load_settings

HEAD = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n"
INSERT = "P\t1\thskv\tkv\tPRIMARY\tk,v\tk\n1\t+\t2\tplanted\tx\n"


def post(server: PrivateServer, body: str) -> bytes:
    """What the write port answers to a form that a browser posts."""
    address = load_settings(server.url).writers[0]
    with socket.create_connection((address.host, address.port), timeout=10) as browser:
        lines = (HEAD + body).encode()
        browser.sendall(lines)
        replies = b""
        # Every line gets an answer, whatever it is.
        while replies.count(b"\n") < lines.count(b"\n"):
            replies += browser.recv(4096)
        return replies


def test_the_secret_is_what_stops_a_web_page(tcp_server: PrivateServer) -> None:
    with hskv.connect(tcp_server.url) as store:
        assert b"unauth" in post(tcp_server, INSERT)
        assert "planted" not in store
        login = f"A\t1\t{tcp_server.write_secret}\n"
        assert post(tcp_server, login + INSERT).endswith(b"0\t1\n0\t1\n0\t1\n")
        assert store.delete("planted")


def test_a_private_server_lets_nobody_else_near_its_sockets(hskv_server: PrivateServer) -> None:
    mode = stat.S_IMODE(hskv_server.directory.stat().st_mode)
    assert mode & (stat.S_IRWXG | stat.S_IRWXO) == 0
