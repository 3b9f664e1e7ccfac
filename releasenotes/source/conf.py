# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the release notes."""

project = "os-brick release notes"
author = "os-brick contributors"
project_copyright = author
release = ""
version = ""

extensions = ["reno.sphinxext"]
html_theme = "alabaster"
html_copy_source = False
