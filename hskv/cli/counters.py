"""`hskv incr` and `hskv decr`."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from .app import App
from .exits import Exit, Failure
from .items import KEY, TTL
from .keys import shown
from .options import json_option, url_options

_Command = TypeVar("_Command", bound=Callable[..., Any])

# So that a negative amount is an argument.
_NUMBERS: Final[dict[str, Any]] = {"ignore_unknown_options": True}


def _options(command: _Command) -> _Command:
    amount = click.argument("amount", type=int, default=1)
    initial = click.option(
        "--initial", type=int, default=0, help="What a missing key counts from.", show_default=True
    )
    return KEY(amount(initial(TTL(command))))


@click.command(context_settings=_NUMBERS)
@_options
@click.option("--ceiling", type=int, help="Do nothing where it would pass this; exit code 1.")
@url_options
@json_option
@click.pass_obj
def incr(app: App, /, key: bytes, amount: int, **options: Any) -> Exit:
    """Add to an integer, and print the new value.

    AMOUNT is 1 unless given. Exact, however many count at once; --ttl is for a key that is made.
    """
    with app.store(key) as store:
        return _count(app, key, lambda: store.incr(key, amount, **options))


@click.command(context_settings=_NUMBERS)
@_options
@click.option("--floor", type=int, help="Do nothing where it would fall below; exit code 1.")
@url_options
@json_option
@click.pass_obj
def decr(app: App, /, key: bytes, amount: int, **options: Any) -> Exit:
    """Subtract from an integer, and print the new value: as `hskv incr` else."""
    with app.store(key) as store:
        return _count(app, key, lambda: store.decr(key, amount, **options))


def _count(app: App, key: bytes, count: Callable[[], int | None]) -> Exit:
    try:
        value = count()
    except (TypeError, OverflowError) as error:
        raise Failure(f"{shown(key)}: {error}", Exit.REFUSED) from None
    if app.json:
        app.emit({"value": value})
    elif value is None:
        click.echo(f"hskv: {shown(key)} is at its bound; nothing was changed", err=True)
    else:
        click.echo(value)
    return Exit.NO if value is None else Exit.OK
