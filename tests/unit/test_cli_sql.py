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
        ("mysql://u:geheim?w@h", True),
        ("mysql://u:@geheim@h/", True),
        ("mysql://u@x:geheim@h/", True),
        ("mysql%3A%2F%2Fu%2Fx%3Ageheim%40h%2F", True),
        ("hskv://h/d?sql=mysql://u:geheim?x@h/", True),
        ("hskv://h/d?timeout=3&sql=mysql%3A%2F%2Fu%3A%253Fgeheim%40h", True),
        ("hskv://:@geheim@h/d", True),
        ("hskv+unix://:a:geheim@/d?read=/r&write=/w", True),
        ("hskv://h:1,2/d?timeout=3", False),
        ("hskv://h/d?secret_file=/s&write_secret_file=/w", False),
        ("hskv://h:1,2/d?sql=mysql://u@h:3,i:4/", False),
        ("mysql://u@h:3/", False),
        ("mysql://u@x@h:3/", False),
        ("mysql://u:@h/", False),
        ("mysql://u%3Ax@h/", False),
        ("hskv://h:1,2/d?prefix=a@b&sql=mysql%3A%2F%2Fu%40h%3A3%2F", False),
        ("hskv://h:1,2/d?prefix=://u:p@h", False),
    ],
)
def test_a_url_that_holds_one(url: str, does: bool) -> None:
    assert holds_password(url) is does
