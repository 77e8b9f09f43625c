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


def mark_wide(app: Sphinx, page: nodes.document) -> None:
    """Give pictures that a phone cannot show whole a class of their own."""
    for image in page.findall(nodes.image):
        drawn = Path(app.srcdir, app.env.docname).parent / image["uri"]
        box = re.search(r'viewBox="\S+ \S+ ([\d.]+)', drawn.read_text())
        if box and float(box[1]) > WIDE_PIXELS:
            image["classes"].append("wide")


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("doctree-read", mark_wide)
