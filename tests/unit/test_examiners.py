"""Who is asked whether it may be read from, by what a URL says."""

import time

import pytest

from hskv.exceptions import ConnectionError as HskvConnectionError
from hskv.transport.address import load_settings
from hskv.transport.health import health_of


@pytest.mark.parametrize(
    "url",
    [
        "hskv://h/db",
        "hskv://h/db?replica=h:2",
        "hskv://H/db?writes=sql&sql=mysql://u@h:1/",
        # Of a tunnel, perhaps.
        "hskv://127.0.0.1/db?writes=sql&sql=mysql://u@other/",
        "hskv://h/db?writes=sql&sql=mysql://u@localhost/",
        "hskv://h/db?writes=sql&sql=mysql://u@[::1]:3307/",
        "hskv+unix:///db?read=/r&writes=sql&sql=mysql://u@other/",
        "hskv:///db?writes=sql&reads=sql&sql=mysql://u@h/",
    ],
)
def test_nobody_is_where_there_is_no_choice_or_no_sql(url: str) -> None:
    assert health_of(load_settings(url)) is None


def test_each_listener_is_by_the_sql_port_on_its_host() -> None:
    url = "hskv://h/db?replica=i:2&writes=sql&sql=mysql://u@i:1,h:1/&connect_timeout=0.05"
    health = health_of(load_settings(url, timeout=0.5))
    assert health is not None
    with pytest.raises(HskvConnectionError, match=r"h:9998: .*h:1.*; i:2: .*i:1"):
        health.well(time.monotonic())
    health.close()


def test_by_sql_alone_the_ports_of_sql_are_read_from() -> None:
    url = "hskv:///db?writes=sql&reads=sql&sql=mysql://u@h,h:2,i/&connect_timeout=0.05"
    health = health_of(load_settings(url, timeout=0.5))
    assert health is not None
    with pytest.raises(HskvConnectionError, match=r"h:3306: .*h:3306.*; h:2: .*h:2.*; i:33"):
        health.well(time.monotonic())
    health.close()


@pytest.mark.parametrize(
    "url",
    [
        "hskv://10.0.0.1/db?replica=10.0.0.2&writes=sql&sql=mysql://u@10.0.0.1,db2/",
        # A replica and its primary: what is written to the one would be read from the other.
        "hskv://10.0.0.2/db?writes=sql&sql=mysql://u@10.0.0.1/",
        "hskv://10.0.0.2/db?sql=mysql://u@10.0.0.1/",
    ],
)
def test_a_listener_whose_sql_port_is_not_named_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"2:9998 is to be read from, but sql= names"):
        health_of(load_settings(url))
