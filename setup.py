"""Builds the optional compiled codec, `hskv_fast`, where there is a compiler.

HSKV_WITHOUT_SPEEDUPS=1 leaves it out. A failure to compile is a note for users, and an error
where wheels are made (CIBUILDWHEEL=1): a wheel must not lack it in silence.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WANTED = os.environ.get("HSKV_WITHOUT_SPEEDUPS", "0") in ("", "0")
OPTIONAL = os.environ.get("CIBUILDWHEEL", "0") != "1"

NOTE = """
*** hskv was installed WITHOUT its compiled codec, hskv_fast: it could not be compiled. ***
*** All works, in pure Python, more slowly. Install a C compiler and Python's headers   ***
*** (Debian: gcc libc6-dev python3-dev), then install hskv again with --force-reinstall ***
"""


class BuildOrTell(build_ext):
    """As setuptools does it; but what could not be built is told."""

    def run(self) -> None:
        super().run()
        if not all(Path(self.get_ext_fullpath(one.name)).exists() for one in self.extensions):
            tell(NOTE)


def tell(note: str) -> None:
    """Say something to whoever installs: pip keeps what a build prints, so the terminal too."""
    print(note, file=sys.stderr)
    if not sys.stderr.isatty():
        with suppress(OSError), Path("/dev/tty").open("w") as terminal:
            print(note, file=terminal)


# Not for the stable ABI (abi3): what it lacks makes a reply twice as dear to decode.
CODEC = Extension(
    "hskv_fast._codec",
    ["hskv_fast/_codec.pyx"],
    extra_compile_args=[] if sys.platform == "win32" else ["-O3"],
    optional=OPTIONAL,
)

setup(ext_modules=[CODEC] if WANTED else [], cmdclass={"build_ext": BuildOrTell})
