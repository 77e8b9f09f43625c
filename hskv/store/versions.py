"""Versions of rows: numbers that no two changes of a value share."""

import os
import random
from functools import partial
from typing import Final

# An own generator, so that seeding the module's one does not repeat versions.
_versions = random.Random()
os.register_at_fork(after_in_child=_versions.seed)

new_version: Final = partial(_versions.getrandbits, 62)
"""A version. Of 62 bits: a counter's goes up by 1 and must never wrap."""
