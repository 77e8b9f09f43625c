"""Marks tests by the directory they are in, and says what is under test."""

from pathlib import Path

import pytest

import hskv


def pytest_report_header() -> str:
    return f"hskv {hskv.__version__}, codec {hskv.codec_implementation}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    for item in items:
        directory = item.path.relative_to(root).parts[0]
        item.add_marker(getattr(pytest.mark, directory))
