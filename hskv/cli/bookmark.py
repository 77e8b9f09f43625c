"""How far a load of a file came, kept beside the file until all of it is stored."""

import json
from pathlib import Path

from ..store.rows import Store, prefix_of
from .dumpfile import Check
from .exits import Exit, Failure
from .keys import shown


class Bookmark:
    """The last block of a file that was stored, and into which table."""

    def __init__(self, file: Path, store: Store) -> None:
        self.path = file.with_name(f"{file.name}.loading")
        self._place = _name(store)

    def found(self, *, resume: bool, restart: bool) -> Check | None:
        """The last block that was stored by a load that was stopped. Failure where unclear."""
        if restart or not self.path.exists():
            return None
        if not resume:
            raise Failure(
                f"{self.path} is left of a load that was stopped: --resume goes on with it, "
                "--restart begins again",
                Exit.USAGE,
            )
        try:
            found = json.loads(self.path.read_bytes())
            place, check = found["into"], Check(found["rows"], found["sha256"])
        except (ValueError, KeyError, TypeError):
            raise Failure(f"{self.path} cannot be read: --restart", Exit.USAGE) from None
        if place != self._place:
            raise Failure(f"the load that was stopped was into {place}: --restart", Exit.USAGE)
        return check

    def put(self, check: Check) -> None:
        """All rows up to this check are stored."""
        found = {"into": self._place, "rows": check.rows, "sha256": check.sha256}
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_text(json.dumps(found))
        new.replace(self.path)

    def remove(self) -> None:
        """Everything is stored."""
        self.path.unlink(missing_ok=True)


def _name(store: Store) -> str:
    """What tells one store from others; without a secret."""
    settings = store.client.settings
    servers = ",".join(map(str, settings.writers))
    return f"{servers}/{settings.database}/{store.table.name} {shown(prefix_of(store))}"
