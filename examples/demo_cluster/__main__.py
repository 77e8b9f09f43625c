"""A store on a primary with two replicas, then on Galera: a server is killed under load."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from hskv.mariadb import PrivateGalera, PrivateReplication
from hskv.mariadb.cluster import Node, PrivateCluster

try:
    from rich.console import Console
    from rich.table import Table

    import hskv
    from examples.demo.ending import ended
    from examples.demo.workers import DemoError

    from .load import Load, Store, at_work
except ImportError as error:
    sys.exit(f"demo: {error}: pip install 'hskv[demo]', or run `make demo-cluster`")

WORK_SECONDS = 1.5
SEEN_SECONDS = 10.0

Cluster = PrivateCluster[Any]
Disaster = Callable[[Console, Any], str]


def kill_primary(console: Console, cluster: PrivateReplication) -> str:
    """Kill the primary, and promote the replica that has the most."""
    old = cluster.primary
    old.kill()
    began = time.perf_counter()
    new = cluster.promote()
    seconds = time.perf_counter() - began
    console.print(
        f"  kill -9 of the primary, {old.listener}; promote() took {seconds:.2f} s:\n"
        f"  the primary is now {new.listener}, which the processes find by themselves"
    )
    return "comes back as a replica"


def kill_node(console: Console, cluster: PrivateGalera) -> str:
    """Kill the node that is written to."""
    node = cluster.nodes[0]
    node.kill()
    console.print(f"  kill -9 of the node that is written to, {node.listener};")
    console.print("  nobody does anything about it")
    return "joins again, with a copy of the data"


def show(console: Console, title: str, cluster: Cluster, kill: Disaster, processes: int) -> None:
    """One engine: load, a kill, and what was lost."""
    console.print(f"\n[bold]{title}[/]")
    began = time.perf_counter()
    with cluster:
        seconds = time.perf_counter() - began
        console.print(f"  {len(cluster.servers)} servers on loopback, ready after {seconds:.1f} s")
        console.print(
            "  A store writes by SQL to one of them, and reads by HandlerSocket from all."
        )
        with at_work(cluster.url, processes) as load:
            time.sleep(WORK_SECONDS)
            console.print(
                f"  {processes} processes count and write, another reads: "
                f"{load.acknowledged:,} writes so far"
            )
            dead = cluster.servers[0]
            how = kill(console, cluster)
            load.wait_for(50)
            began = time.perf_counter()
            cluster.start()
            seconds = time.perf_counter() - began
            console.print(f"  {dead.listener} {how} ({seconds:.1f} s)")
            time.sleep(WORK_SECONDS)
        verdict(console, cluster, load)


def verdict(console: Console, cluster: Cluster, load: Load) -> None:
    """What the processes were told, beside what each server has. Raises DemoError."""
    least = sum(told.counted for told in load.told)
    most = least + sum(told.perhaps_counted for told in load.told)
    table = Table("server", "count", "values", "lost")
    lost = 0
    for server in cluster.servers:
        count, missing = compared(cluster, server, load)
        lost += missing + (not least <= count <= most)
        kept = sum(len(told.last) for told in load.told)
        table.add_row(server.listener, f"{count:,}", f"{kept:,}", str(missing))
    gap = max(told.longest_gap for told in load.told)
    failed = sum(told.failed for told in load.told)
    console.print(
        f"  writes: {load.acknowledged:,} acknowledged, {failed} failed or unknown; "
        f"longest pause {gap:.2f} s\n"
        f"  reads: {load.reader.reads:,}, {load.reader.errors} errors; "
        f"longest pause {load.reader.longest_gap:.2f} s\n"
        f"  counted: {least:,} acknowledged, {most - least} unknown"
    )
    console.print(table)
    if lost:
        raise DemoError("an acknowledged write is lost, or the count is wrong")
    console.print("  Nothing that was acknowledged is lost; the count is exact.")


def compared(cluster: Cluster, server: Node, load: Load) -> tuple[int, int]:
    """What a server has counted, and how many acknowledged values it has not."""
    url = f"{server.read_url}?writes=sql&sql={cluster.sql_url}&read=replica"
    store: Store
    with hskv.connect(cluster.url) as writer, hskv.connect(url) as store:
        writer["end"] = str(time.time())
        deadline = time.monotonic() + SEEN_SECONDS
        while store.get("end") != writer["end"] and time.monotonic() < deadline:
            time.sleep(0.01)
        missing = 0
        for told in load.told:
            found = store.get_many(told.last)
            missing += sum(
                found.get(key) not in (value, told.unknown.get(key, value))
                for key, value in told.last.items()
            )
        return store.get("count", 0), missing


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser("make demo-cluster", description=__doc__)
    parser.add_argument("--processes", type=int, default=4, help="that write; default 4")
    parser.add_argument(
        "--engines", nargs="+", choices=("replication", "galera"), default=["replication", "galera"]
    )
    options = parser.parse_args()
    if options.processes < 1:
        parser.error("--processes is at least 1")
    return options


def run(options: argparse.Namespace) -> None:
    """Show the engines that were asked for."""
    console = Console(highlight=False)
    if "replication" in options.engines:
        title = "A primary with two replicas, semi-synchronous"
        show(console, title, PrivateReplication(2), kill_primary, options.processes)
    if "galera" in options.engines:
        show(console, "Galera, three nodes", PrivateGalera(), kill_node, options.processes)
    console.print("\nAll servers are stopped, and their data removed.")


def main() -> int:
    """Run the demo; the exit status."""
    options = parse()
    return ended(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
