"""What a run measured: a table for the terminal, Markdown, JSON, and charts."""

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rich.table

from benchmarks.contenders import CONTENDERS
from benchmarks.goals import markdown


class Cell(NamedTuple):
    """Of one client and operation: the ratio to the base, and microseconds a call."""

    ratio: float
    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.cpu:.1f})"


class Table:
    """One run: by operation and client, the rounds."""

    def __init__(self, title: str, base: str, times: Mapping[str, Mapping[str, Any]]) -> None:
        self.title = title
        self.operations = list(times)
        names = [name for rounds in times.values() for name in rounds]
        self.names = sorted(set(names), key=_place)
        self.cells: dict[str, dict[str, Cell]] = {
            operation: {name: _cell(rounds[base], one) for name, one in rounds.items()}
            for operation, rounds in times.items()
        }

    def rows(self) -> list[list[str]]:
        """A row for each client: its cells, as text."""
        return [
            [name, *(str(self.cells[one].get(name, "")) for one in self.operations)]
            for name in self.names
        ]

    def rich(self) -> Iterator[rich.table.Table]:
        """For a terminal, as wide as most are."""
        for start in range(0, len(self.operations), 3):
            part = slice(start, start + 3)
            title = f"{self.title}: speed beside the raw loop (client CPU, us a call)"
            grid = rich.table.Table("", *self.operations[part], title=title, title_justify="left")
            for row in self.rows():
                grid.add_row(row[0], *row[1:][part])
            yield grid

    def markdown(self) -> str:
        """For a page."""
        header = ["", *self.operations]
        lines = [header, ["---", *["---:"] * len(self.operations)], *self.rows()]
        return f"## {self.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _place(name: str) -> int:
    return list(CONTENDERS).index(name)


def _cell(base: Sequence[dict[str, float]], rounds: Sequence[dict[str, float]]) -> Cell:
    pairs = zip(base, rounds, strict=True)
    return Cell(
        statistics.median(theirs["wall"] / ours["wall"] for theirs, ours in pairs),
        statistics.median(one["wall"] for one in rounds),
        statistics.median(one["cpu"] for one in rounds),
    )


def write(directory: Path, versions: Mapping[str, str], tables: Sequence[Table]) -> None:
    """results.md, results.json, and a chart of each table."""
    directory.mkdir(parents=True, exist_ok=True)
    facts = "\n".join(f"- {name}: {version}" for name, version in versions.items())
    head = (
        "# Measured\n\nBy `make bench`; a cell is the speed beside the raw loop that sends the "
        "store's bytes (1.00, more is\nfaster), and in brackets the client's CPU in microseconds a "
        f"call. How to read it: [performance](../performance.md).\n\n{facts}\n\n"
    )
    data: dict[str, Any] = {
        "versions": versions,
        "runs": {
            table.title: {
                operation: {name: cell._asdict() for name, cell in cells.items()}
                for operation, cells in table.cells.items()
            }
            for table in tables
        },
    }
    (directory / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    sections = [markdown(data["runs"]), *(table.markdown() + "\n" for table in tables)]
    (directory / "results.md").write_text(head + "\n".join(filter(None, sections)))
    for table in tables:
        _chart(
            directory / f"{re.sub(r'[^a-z0-9]+', '-', table.title.lower()).strip('-')}.svg", table
        )


def _chart(path: Path, table: Table) -> None:
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "hskv"
    shown = table.operations[:6]
    # Two or three beside each other can be read in a column of text.
    columns = min(len(shown), 2 if len(shown) == 4 else 3)
    rows = -(-len(shown) // columns)
    size = (2.1 * columns + 1.7, (0.26 * len(table.names) + 0.6) * rows + 0.4)
    figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    axes = grid.flatten()
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    for axis, operation in zip(axes, shown, strict=False):
        cells = table.cells[operation]
        values = [cells[name].ratio if name in cells else 0.0 for name in table.names]
        colours = ["#b5652b" if name.startswith("hskv") else "#9aa5b1" for name in table.names]
        bars = axis.barh(table.names, values, color=colours)
        axis.bar_label(bars, [f"{value:.2f}" if value else "" for value in values], fontsize=7)
        axis.set_title(operation.replace(", ", "\n"), fontsize=8)
        axis.margins(x=0.25)
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(labelsize=8, length=0)
    axes[0].invert_yaxis()
    figure.suptitle(f"{table.title}:\nspeed beside a raw loop (1.00)", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
