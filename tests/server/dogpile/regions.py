"""Regions on the backend under test."""

import multiprocessing
from typing import Any

from dogpile.cache import make_region

SPAWN = multiprocessing.get_context("spawn")
NOWHERE = "hskv+unix:///d?read=/nonexistent/r&write=/nonexistent/w"


def region_of(**arguments: Any) -> Any:
    return make_region().configure("hskv", arguments=arguments)
