"""How Sphinx builds the documentation: `make docs`."""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

import hskv

project = "hskv"
author = "The hskv authors"
copyright = f"2026, {author}"  # noqa: A001 Sphinx's name
version = release = hskv.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["build"]

myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline", "attrs_block"]

# In docstrings a word in single backticks is code.
default_role = "code"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 60
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"hskv {release}"
html_static_path = ["_static"]
html_css_files = ["hskv.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

# What is copied is to be pasted and run.
copybutton_prompt_text = r">>> |\.\.\.(?: |$)"
copybutton_prompt_is_regexp = True

WIDE_PIXELS = 500
SHORT_LETTERS = 10
LONG_NAME_LETTERS = 14


def mark_wide(app: Sphinx, page: nodes.document) -> None:
    """Give pictures that a phone cannot show whole a class of their own."""
    for image in page.findall(nodes.image):
        drawn = Path(app.srcdir, app.env.docname).parent / image["uri"]
        box = re.search(r'viewBox="\S+ \S+ ([\d.]+)', drawn.read_text())
        if box and float(box[1]) > WIDE_PIXELS:
            image["classes"].append("wide")


def mark_short(app: Sphinx, page: nodes.document) -> None:
    """Give columns of short words, which take no room on a phone, a class of their own."""
    for body in page.findall(nodes.tbody):
        for column in zip(*(row.children for row in body.children), strict=True):
            if all(len(cell.astext()) <= SHORT_LETTERS for cell in column):
                for cell in column:
                    cell["classes"].append("short")


def break_names(app: Sphinx, page: nodes.document) -> None:
    """Let a long name in a table go on in the next line, at the words it is made of."""
    for entry in page.findall(nodes.entry):
        for name in entry.findall(nodes.literal):
            if len(name.astext()) > LONG_NAME_LETTERS:
                words = re.split(r"(?<=_)|(?<=[a-z])(?=[A-Z])|(?<=[(.])(?=\w)", name.astext())
                name.children = [nodes.Text(words[0])]
                for word in words[1:]:
                    name += [nodes.raw("", "<wbr>", format="html"), nodes.Text(word)]


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("doctree-read", mark_wide)
    app.connect("doctree-read", mark_short)
    app.connect("doctree-read", break_names)
