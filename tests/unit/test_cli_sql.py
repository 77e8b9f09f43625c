"""Whether the command warns that a URL shows a secret."""

import pytest

from hskv.cli.sql import holds_password


@pytest.mark.parametrize(
    ("url", "does"),
    [
        ("hskv://:geheim@h/d", True),
        ("hskv://h/d?write_secret=geheim", True),
        ("hskv://h:1,2/d?sql=mysql://u:geheim@h/", True),
        ("hskv://h/d?sql=mysql%3A%2F%2Fu%3Ageheim%40h%2F", True),
        ("hskv://h/d?sql=mysql://u:a%2Fb%40c@h/", True),
        ("mysql+unix://u:geheim@/s", True),
        ("hskv://h:1,2/d?timeout=3", False),
        ("hskv://h/d?secret_file=/s&write_secret_file=/w", False),
        ("hskv://h:1,2/d?sql=mysql://u@h:3,i:4/", False),
        ("mysql://u@h:3/", False),
    ],
)
def test_a_url_that_holds_one(url: str, does: bool) -> None:
    assert holds_password(url) is does
