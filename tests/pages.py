"""The code blocks of the documentation: which there are, and what each is to be run by.

A comment in the line before a block says what cannot be seen in it:

    <!-- file: NAME -->           it is a file of that name, which later blocks of the page use
    <!-- run by tests/... -->     another test runs it; without a block below, all of the page
    <!-- not run: REASON -->      nothing can run it here
"""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"

# A comment, a fence of at least three backticks, its language, the text, the same fence.
_BLOCK: Final = re.compile(
    r"^(?:[ ]*<!-- (?P<mark>[^\n]*?) -->\n)?"
    r"(?P<indent>[ ]*)(?P<fence>```+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)(?P=fence)\n",
    re.MULTILINE | re.DOTALL,
)
_WHOLE_PAGE: Final = re.compile(r"^<!-- (run by [^\n]*?) -->\n\n", re.MULTILINE)


class Block(NamedTuple):
    """One block of code. `line` is that of its text, `mark` the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def file(self) -> str | None:
        """The name under which it is kept."""
        return self.mark.partition("file: ")[2] or None

    @property
    def elsewhere(self) -> str | None:
        """The test that runs it instead."""
        return self.mark.partition("run by ")[2] or None

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        return self.mark.partition("not run: ")[2] or None

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """What people read: the README and what Sphinx builds, measurements left out."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    return [page for page in found if page.parent.name != "bench"]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, directives of Sphinx left out."""
    source = page.read_text()
    whole = _WHOLE_PAGE.search(source)
    for found in _BLOCK.finditer(source):
        language = found["language"].strip()
        if not language.startswith("{"):
            line = source.count("\n", 0, found.start("text")) + 1
            mark = found["mark"] or (whole[1] if whole else "")
            yield Block(page, line, language, textwrap.dedent(found["text"]), mark)
