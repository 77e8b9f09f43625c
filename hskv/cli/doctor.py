"""`hskv doctor`: what is wrong with a server, and the lines that mend it."""

from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING, Final

import click

from .app import App, usage
from .exits import Exit
from .options import json_option, sql_options, url_options

if TYPE_CHECKING:
    from rich.console import Console

    from ..mariadb.doctor import Finding, Report

_STYLES: Final = {"problem": "bad", "warning": "warning"}
_PLACES: Final = {
    "my.cnf": "in my.cnf, under [mariadb]; then restart the server",
    "sql": "by SQL, as an administrator",
    "url": "use this URL",
    "shell": "run",
}


@click.command()
@click.option("--strict", is_flag=True, help="Let warnings count as problems.")
@url_options
@sql_options
@json_option
@click.pass_obj
def doctor(app: App, strict: bool) -> int:
    """Look at the server, its settings and the table; say what is wrong and what mends it.

    Without --sql neither the settings nor the columns of the table can be seen. Writes a row of
    its own and removes it. Exit code: 0 healthy, 1 problems (with --strict, or warnings).
    """
    from ..mariadb.doctor import examine

    # The database may be what is missing.
    sql = [{**login, "database": None} for login in app.sql_logins()] if app.has_sql else ()
    with usage():
        report = examine(app.url, sql)
    if app.json:
        app.emit(report.as_dict())
    else:
        _print(app.console, report)
    return Exit.NO if not report.healthy or (strict and report.findings) else Exit.OK


def _print(console: "Console", report: "Report") -> None:
    for finding in report.sorted():
        _print_finding(console, finding)
    if report.lacking:
        _print_unseen(console, report)
    style = "bad" if not report.healthy else "warning" if report.findings else "good"
    _print_text(console, f"{report.seen} things looked at", indent="")
    _print_text(console, report.verdict, indent="", style=style)


def _print_finding(console: "Console", finding: "Finding") -> None:
    severity = str(finding.entry.severity)
    console.print(severity, style=_STYLES[severity], end=" ")
    console.print(finding.id, style="name")
    _print_text(console, finding.what)
    _print_text(console, f"{finding.entry.why} ({finding.entry.page})")
    for where, mends in groupby(finding.mend, lambda mend: mend.where):
        lines = [mend.line for mend in mends]
        hidden = " (put your secrets in for ***)" * any("***" in line for line in lines)
        _print_text(console, f"{_PLACES[where]}{hidden}:")
        for line in lines:
            # Whole, so that it can be copied.
            console.print(f"    {line}{';' * (where == 'sql')}", soft_wrap=True)
    console.print()


def _print_unseen(console: "Console", report: "Report") -> None:
    why = "; ".join(dict.fromkeys(report.lacking.values()))
    _print_text(console, f"{len(report.unseen)} things not looked at: {why}", indent="")
    _print_text(console, ", ".join(report.unseen))
    console.print()


def _print_text(
    console: "Console", text: str, indent: str = "  ", style: str | None = None
) -> None:
    width = console.width - len(indent)
    for line in wrap(text, width, break_long_words=False, break_on_hyphens=False):
        console.print(f"{indent}{line}", style=style, soft_wrap=True)
