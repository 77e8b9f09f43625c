"""What the doctor finds: findings, what mends them, and the report they make up."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from .catalogue import CATALOGUE, Entry, Need, Severity


class Where(StrEnum):
    """Where a line that mends something goes."""

    CONFIGURATION = "my.cnf"
    """Under [mariadb] in the server's configuration; then restart the server."""
    SQL = "sql"
    """To be run as an administrator; what changes a table waits until its clients are drained."""
    URL = "url"
    """The URL to use instead; three asterisks stand for the secrets, which are left out."""
    SHELL = "shell"
    """A command."""


class Mend(NamedTuple):
    """One line that mends a finding, or a part of it."""

    where: Where
    line: str


class Finding(NamedTuple):
    """Something that is wrong: its name in the catalogue, what was seen, what mends it."""

    id: str
    what: str
    mend: tuple[Mend, ...]

    @property
    def entry(self) -> Entry:
        """What the catalogue says of it: how grave it is, and why it matters."""
        return CATALOGUE[self.id]

    def as_dict(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {
            "id": self.id,
            "severity": str(self.entry.severity),
            "what": self.what,
            "why": self.entry.why,
            "page": self.entry.page,
            "mend": [{"where": str(mend.where), "line": mend.line} for mend in self.mend],
        }


_RANKS: Final = {Severity.PROBLEM: 0, Severity.WARNING: 1}


@dataclass
class Report:
    """What was found, and what could not be looked at, with the reason."""

    findings: list[Finding] = field(default_factory=list)
    lacking: dict[Need, str] = field(default_factory=dict)
    """What was needed to look at some things and could not be had, and why not."""

    def add(self, finding: Finding) -> None:
        """Take a finding up; of those with the same name and words only the first."""
        if finding not in self.findings:
            self.findings.append(finding)

    def sorted(self) -> list[Finding]:
        """The findings, problems first."""
        return sorted(self.findings, key=lambda finding: _RANKS[finding.entry.severity])

    def count(self, severity: Severity) -> int:
        """How many findings are so grave."""
        return sum(finding.entry.severity is severity for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """No problems; there may be warnings."""
        return self.count(Severity.PROBLEM) == 0

    @property
    def unseen(self) -> list[str]:
        """The names in the catalogue of what could not be looked at."""
        found = {finding.id for finding in self.findings}
        return [
            name
            for name, entry in CATALOGUE.items()
            if name not in found and not entry.is_seen(self.lacking)
        ]

    def why_not(self, need: str) -> str | None:
        """Why something that is needed could not be had: "sql", "table", ...; None where it was."""
        return self.lacking.get(Need(need))

    @property
    def seen(self) -> int:
        """How many things were looked at."""
        return len(CATALOGUE) - len(self.unseen)

    @property
    def verdict(self) -> str:
        """All of it in one line."""
        problems, warnings = self.count(Severity.PROBLEM), self.count(Severity.WARNING)
        if problems:
            counted = [
                _counted(problems, "problem"),
                *[_counted(warnings, "warning")] * bool(warnings),
            ]
            return f"{' and '.join(counted)} found"
        healthy = "healthy, as far as could be seen" if self.lacking else "healthy"
        return f"{healthy}, with {_counted(warnings, 'warning')}" if warnings else healthy

    def as_dict(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {
            "healthy": self.healthy,
            "verdict": self.verdict,
            "findings": [finding.as_dict() for finding in self.sorted()],
            "looked_at": self.seen,
            "unseen": self.unseen,
            "why_unseen": {str(need): why for need, why in self.lacking.items()},
        }


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
