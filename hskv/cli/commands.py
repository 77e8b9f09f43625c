"""The list of commands, and what is done about errors."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from .exits import Exit, Failure, failure_of
from .options import json_option, sql_options, url_options

# By name: the module, what it is called there, what it does. The module is imported when it runs.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "server": ("server", "server", "Run a private MariaDB, whose data stays."),
    "init": ("init", "init", "Make the table, or print how."),
    "get": ("items", "get", "Print the value of a key."),
    "set": ("items", "set_", "Store a value."),
    "add": ("items", "add", "Store a value where the key is missing."),
    "delete": ("items", "delete", "Remove keys."),
    "incr": ("counters", "incr", "Add to an integer."),
    "decr": ("counters", "decr", "Subtract from an integer."),
    "ttl": ("items", "ttl", "Print how long a key has left."),
    "touch": ("items", "touch", "Set when a key expires."),
    "scan": ("scan", "scan", "Print keys and values, in key order."),
    "dump": ("dump", "dump", "Write all rows to a file."),
    "load": ("load", "load", "Store the rows of a dump."),
    "purge": ("table", "purge", "Remove expired rows."),
    "stats": ("stats", "stats", "Count the rows, and what room they take."),
    "bench": ("bench", "bench", "Measure this server, and what the store costs."),
    "drain": ("drain", "drain", "Change the table while nobody has it open."),
    "doctor": ("doctor", "doctor", "Find what is wrong with the server, and what mends it."),
}


class Commands(click.Group):
    """Commands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, as `--help` lists them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f".{module}", __package__), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, _, what) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its errors become messages and exit codes."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise click.exceptions.Exit(Exit.NOBODY_READS) from None
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            raise failure from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hskv", message="%(prog)s %(version)s")
@url_options
@sql_options
@json_option
def hskv() -> None:
    """A MariaDB table as a key-value store, through HandlerSocket.

    The server is named by --url or the environment variable HSKV_URL. Options that several
    commands have may stand before the name of the command or behind it.

    Exit codes: 0 done; 1 no (a missing key, nothing stored, a check that found something);
    2 wrong usage; 3 the server is away; 4 it refused; 5 a write whose answer was lost; 6 damaged
    data; 130 interrupted.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; its exit code."""
    try:
        code = hskv.main(arguments, "hskv", standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        click.echo(f"hskv: {failure.format_message()}", err=True)
        code = failure.code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        code = Exit.NOBODY_READS
    if code == Exit.NOBODY_READS:
        # Else the interpreter would try again to write what is left, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(code or 0)
