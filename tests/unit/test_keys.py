"""Keys to row keys, without a server."""

from typing import Any

import pytest

from hskv.exceptions import KeyTooLongError
from hskv.store.keys import keys_of
from hskv.store.table import Table


@pytest.mark.parametrize("prefix", ["", "p:"])
def test_many_row_keys_are_those_of_each_alone(prefix: str) -> None:
    keys = keys_of(Table(), str, prefix)
    some = ["a", "\n", "a\n\nb", "\n\x00", "a\x00", "\N{SNOWMAN}", "x" * 250, "a"]
    assert keys.row_keys(some) == {keys.row_key(key): key for key in some}
    assert keys.row_keys([]) == {}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("", ValueError),
        ("\x00a", ValueError),
        ("\ud800", ValueError),
        ("x" * 256, KeyTooLongError),
        (b"a", TypeError),
        (1, TypeError),
    ],
)
def test_one_key_among_many_that_can_be_none_is_refused(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        keys_of(Table(), str, "").row_keys(["a", wrong, "b"])
