# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the documentation."""

import configparser
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE / "_ext"), str(ROOT)]

_package = configparser.ConfigParser(interpolation=None)
_package.read(ROOT / "setup.cfg", encoding="utf-8")

project = "os-brick"
author = "os-brick contributors"
project_copyright = author
release = _package["metadata"]["version"]
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "connectors",
    "reference",
]
exclude_patterns: list[str] = []
nitpicky = False

# What os_brick loads only where it is installed.
autodoc_mock_imports = ["rados", "rbd"]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"
# An attribute that the docstring describes and the class annotates is one thing, not two.
napoleon_use_ivar = True

html_theme = "alabaster"
html_theme_options = {
    "description": "Storage volumes, attached and detached",
    "fixed_sidebar": True,
    "page_width": "1040px",
}
html_copy_source = False
