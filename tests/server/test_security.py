"""What the security page says of the server."""

import socket
import stat
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pymysql

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


def test_a_user_of_sql_without_any_right_reads_the_secrets(
    hskv_server: PrivateServer, run_sql: Callable[..., Any]
) -> None:
    run_sql("CREATE USER nobody@localhost IDENTIFIED BY 'n'")
    login = {**hskv_server.sql, "user": "nobody", "password": "n", "database": None}
    try:
        with closing(pymysql.connect(**login)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@handlersocket_plain_secret, @@handlersocket_plain_secret_wr")
            assert cursor.fetchone() == (hskv_server.secret, hskv_server.write_secret)
    finally:
        run_sql("DROP USER nobody@localhost")


def test_a_private_server_lets_nobody_else_near_its_sockets(hskv_server: PrivateServer) -> None:
    mode = stat.S_IMODE(hskv_server.directory.stat().st_mode)
    assert mode & (stat.S_IRWXG | stat.S_IRWXO) == 0
