"""How Sphinx builds the documentation: `make docs`."""

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
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
python_maximum_signature_line_length = 60
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"hskv {release}"
html_static_path = ["_static"]
html_css_files = ["hskv.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

# What is copied is to be pasted and run.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
