"""Runs every part of the demo, on a private MariaDB."""

import argparse
import os
import sys
import time

from hskv.mariadb import PrivateServer

try:
    from rich.console import Console

    from . import library
    from .ending import ended
    from .expiry import show_expiry
    from .limiter import show_limiter
    from .region import show_region
except ImportError as error:
    sys.exit(f"demo: {error}: pip install 'hskv[demo]', or run `make demo`")


def show_all(console: Console, server: PrivateServer, names: list[str], processes: int) -> None:
    """The demo, on a server that runs."""
    first = library.show_first_pass(console, server.url, names, processes)
    second = library.show_second_pass(console, server.url, names, processes, first)
    show_expiry(console, server.url)
    show_region(console, server.url)
    show_limiter(console, server.url)
    largest = library.show_sql(console, server, first.kinds)
    library.show_results(console, server.url, first, second, largest)


def run(options: argparse.Namespace) -> None:
    """Start a server, show everything on it, and stop it whatever comes."""
    console = Console(highlight=False)
    console.print("[bold]1. A private MariaDB.[/]\n  It is started for this demo only ...")
    started = time.perf_counter()
    with PrivateServer() as server:
        ((version,),) = library.query(server, "SELECT VERSION()")
        seconds = time.perf_counter() - started
        console.print(f"  MariaDB {version}, process {server.pid}, ready after {seconds:.1f} s")
        show_all(console, server, library.find_modules(options.limit), options.processes)
    console.print("The server is stopped, and its data removed.")


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser("make demo", description=__doc__)
    cores = min(4, os.cpu_count() or 2)
    parser.add_argument("--processes", type=int, default=cores, help="default %(default)s")
    parser.add_argument("--limit", type=int, default=0, help="modules to read; default 0, for all")
    options = parser.parse_args()
    if options.processes < 1 or options.limit < 0:
        parser.error("--processes is at least 1, and --limit at least 0")
    return options


def main() -> int:
    """Run the demo; the exit status."""
    options = parse()
    return ended(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
