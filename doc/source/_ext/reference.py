# SPDX-License-Identifier: Apache-2.0
"""Write one page of reference per public module, from the files that are there.

A module that is added, renamed or removed needs no change in the documentation.
Nothing is imported here; autodoc does that when it reads the pages.
"""

import pathlib

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

PACKAGE = "os_brick"
LEFT_OUT = {"tests"}


def public_modules(root: pathlib.Path) -> list[str]:
    """Dotted names of the package's modules, without tests and private ones."""
    names = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(root).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if LEFT_OUT.isdisjoint(parts) and not any(part.startswith("_") for part in parts):
            names.append(".".join(parts))
    return sorted(names)


def page(module: str) -> str:
    """Source of the page of one module."""
    return f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n"


def write_pages(app: Sphinx) -> None:
    """Bring ``reference/api`` in line with the modules; leave what is right untouched."""
    source = pathlib.Path(app.srcdir)
    target = source / "reference" / "api"
    target.mkdir(exist_ok=True)
    pages = {f"{name}.rst": page(name) for name in public_modules(source.parent.parent)}
    for old in target.glob("*.rst"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = target / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Hook in before Sphinx looks for source files."""
    app.connect("builder-inited", write_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
