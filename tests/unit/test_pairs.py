"""HandlerSocket listeners and the SQL ports of the same servers."""

import pytest

from hskv.transport.endpoint import Address
from hskv.transport.pairs import sql_ports


@pytest.mark.parametrize(
    ("listeners", "hosts", "ports"),
    [
        # By host, whatever the order.
        (["a:1", "b:1"], ["b:12", "a:11"], [11, 12]),
        (["DB1:1", "db2:1"], ["db1:11", "db2:12"], [11, 12]),
        # Several on a host: in order.
        (["a:1", "a:2"], ["a:11", "a:12"], [11, 12]),
        (["a:1", "b:1", "a:2"], ["a:11", "a:12", "b:13"], [11, 13, 12]),
        # More of one than of the other.
        (["a:1"], ["b:11", "a:12"], [12]),
        (["a:1", "b:1"], ["b:11"], [None, 11]),
        (["a:1", "a:2"], ["a:11"], [11, None]),
        # One of each, where one may be a tunnel's.
        (["127.0.0.1:1"], ["localhost:11"], [11]),
        (["127.0.0.1:1"], ["a:11"], [11]),
        (["a:1"], ["localhost:11"], [11]),
        (["a:1"], ["b:11"], [None]),
    ],
)
def test_each_listener_has_the_port_of_its_own_server(
    listeners: list[str], hosts: list[str], ports: list[int | None]
) -> None:
    found = sql_ports(addresses(listeners), addresses(hosts))
    assert [one and one.port for one in found] == ports


def addresses(texts: list[str]) -> list[Address]:
    parts = (text.split(":") for text in texts)
    return [Address(host, int(port)) for host, port in parts]


def test_a_unix_socket_is_on_localhost() -> None:
    hosts = [Address("10.0.0.1", 3306), Address("localhost", 3306)]
    assert sql_ports([Address(path="/run/read.sock")], hosts) == (hosts[1],)
