"""The figures of all faults and of long runs, at the end of a run."""

from typing import Any

from .oracle import Figures


def show_figures(reporter: Any) -> None:
    """The figures of all tests that injected faults, where there were any."""
    figures = Figures()
    for reports in reporter.stats.values():
        for report in reports:
            # The report of each phase repeats those before.
            if getattr(report, "when", None) == "teardown":
                for name, value in report.user_properties:
                    if name == "faults":
                        figures.add(Figures.of(value))
    _show_told(reporter)
    if figures.calls:
        _show(reporter, figures)


def _show_told(reporter: Any) -> None:
    """What long tests, and those of clusters, printed in the end: what they measured."""
    told = [
        line
        for report in reporter.stats.get("passed", [])
        if report.when == "call" and {"stress", "cluster"} & set(report.keywords)
        for line in report.capstdout.splitlines()
        if line.strip()
    ]
    if told:
        reporter.section("long runs")
        for line in told:
            reporter.line(line)


def _show(reporter: Any, figures: Figures) -> None:
    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))

    reporter.section("faults and load")
    reporter.line(f"faults injected: {figures.faults.total():,} ({listed(figures.faults)})")
    reporter.line(f"rounds survived: {figures.rounds.total():,} ({listed(figures.rounds)})")
    reporter.line(f"calls: {figures.calls:,}")
    reporter.line(f"outcomes of the calls that met a fault: {listed(figures.outcomes)}")
    reporter.line(f"writes acknowledged: {figures.acknowledged:,}; unknown: {figures.unknown:,}")
    reporter.line(f"writes lost: {figures.lost_writes}")
    reporter.line(f"writes doubled: {figures.doubled_writes}")
    reporter.line(f"writes made though reported as not made: {figures.denied_writes}")
    reporter.line(f"wrong answers: {figures.wrong_answers}")
    reporter.line(f"waits past the deadline by more than 1 s: {figures.overlong_waits}")
