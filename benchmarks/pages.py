"""Tables of a run, for a terminal and for a page of the documentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import rich.table


class Grid(NamedTuple):
    """A table of text; a row of one cell is a heading of those that follow."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> rich.table.Table:
        """For a terminal."""
        grid = rich.table.Table(*self.header, title=self.title, title_justify="left")
        grid.columns[0].no_wrap = True
        for column in grid.columns[1:]:
            column.justify = "right"
        for row in self.rows:
            grid.add_row(f"[bold]{row[0]}[/]" if len(row) == 1 else row[0], *row[1:])
        return grid

    def markdown(self) -> str:
        """For a page."""
        width = len(self.header)
        headed = [
            [f"**{row[0]}**", *[""] * (width - 1)] if len(row) == 1 else row for row in self.rows
        ]
        lines = [self.header, ["---", *["---:"] * (width - 1)], *headed]
        return f"## {self.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(path: Path, head: str, versions: Mapping[str, str], grids: Sequence[Grid]) -> None:
    """A page: what it is, what was measured on what, the tables."""
    facts = "\n".join(f"- {name}: {version}" for name, version in versions.items())
    path.write_text("\n".join([head, "", facts, "", *[grid.markdown() for grid in grids]]))
