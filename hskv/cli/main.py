"""Where the command begins: what it needs is checked before it is imported."""

import sys
from importlib import import_module
from typing import Final

_WITHOUT: Final = "the command hskv needs {}, of its extra: pip install 'hskv[cli]'\n"


def main() -> int:
    """Run the command that stands in `sys.argv`; its exit code."""
    try:
        commands = import_module(".commands", __package__)
    except ImportError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(_WITHOUT.format(error.name))
        return 2
    code: int = commands.run()
    return code
