"""How far a long command is, for people who wait for it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

from .app import App
from .dumpfile import Check


class Pace:
    """Rows done, and since when; shown on a terminal by a bar."""

    def __init__(self, bar: "Progress | None", task: "TaskID | None") -> None:
        self._bar = bar
        self._task = task
        self._began = time.monotonic()
        self._first = 0
        self.rows = 0

    def begin(self, rows: int, total: int | None = None) -> None:
        """So many rows were done before, of so many where that is known."""
        self._began = time.monotonic()
        self._first = self.rows = rows
        self._show(total=total)

    def reach(self, rows: int) -> None:
        """So many rows are done."""
        self.rows = rows
        self._show(rate=f"{self.rate:,.0f} rows/s")

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Rows in a second."""
        return (self.rows - self._first) / max(self.seconds, 1e-6)

    def tell(self, app: App, what: str, check: Check, *, err: bool = False, **more: int) -> None:
        """Print what was done: on stdout, on stderr where stdout is taken."""
        self.reach(check.rows)
        found = {what: self.rows, **more, "seconds": round(self.seconds, 3), "sha256": check.sha256}
        if app.json:
            click.echo(json.dumps(found), err=err)
            return
        others = "".join(f", {count:,} {name}" for name, count in more.items())
        click.echo(
            f"{what} {self.rows:,} rows{others} in {self.seconds:.1f} s ({self.rate:,.0f} rows/s), "
            f"sha256 {check.sha256}",
            err=err,
        )

    def _show(self, **what: object) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.rows, **what)  # type: ignore[arg-type]


@contextmanager
def progress(app: App, what: str) -> Iterator[Pace]:
    """Show how far something is, on stderr where that is a terminal."""
    if not app.notes.is_terminal or app.json:
        yield Pace(None, None)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=app.notes, transient=True) as bar:
        yield Pace(bar, bar.add_task(what, total=None, rate=""))
