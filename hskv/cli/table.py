"""`hskv purge`: what is done to the table as a whole."""

import click

from .app import App
from .options import json_option, url_options


@click.command()
@click.option("--limit", type=click.IntRange(min=1), help="Remove at most so many rows.")
@url_options
@json_option
@click.pass_obj
def purge(app: App, limit: int | None) -> None:
    """Remove rows that expired more than a minute ago, of the whole table."""
    with app.store() as store:
        removed = store.purge_expired(limit=limit)
    if app.json:
        app.emit({"removed": removed})
    else:
        app.console.print(f"{removed} expired rows removed")
