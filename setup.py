"""Builds the optional compiled codec, where its source and a compiler are there.

HSKV_WITHOUT_SPEEDUPS=1 leaves it out. A failure to compile is a warning for users, and an
error where wheels are made (CIBUILDWHEEL=1): a wheel must not lack it in silence.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

WANTED = os.environ.get("HSKV_WITHOUT_SPEEDUPS", "0") in ("", "0")
OPTIONAL = os.environ.get("CIBUILDWHEEL", "0") != "1"

setup(
    ext_modules=[
        Extension(source.stem, [str(source)], optional=OPTIONAL)
        for source in Path("hskv_fast").glob("*.pyx")
        if WANTED
    ],
)
