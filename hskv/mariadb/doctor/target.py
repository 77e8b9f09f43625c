"""What is examined: a URL, and what it says."""

from typing import NamedTuple

from ...transport.address import Settings


class Target(NamedTuple):
    """The URL as it was given, and its settings."""

    url: str
    settings: Settings

    @property
    def reads(self) -> bool:
        """Whether it reads by HandlerSocket."""
        return self.settings.reads == "handlersocket"

    @property
    def writes(self) -> bool:
        """Whether it writes by HandlerSocket."""
        return self.settings.writes == "handlersocket"
