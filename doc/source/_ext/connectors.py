# SPDX-License-Identifier: Apache-2.0
"""The directive ``connector-list``: every protocol of the factory, from the factory's own tables.

A protocol that is added or leaves needs no change in the documentation. Each connector has a page
named after its module; that one is missing is a warning, and so an error of the build.
"""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles
from sphinx.util.typing import ExtensionMetadata

from os_brick.initiator import connector

LOG = logging.getLogger(__name__)
#: Heading of a column and a machine that stands for it.
PLATFORMS = {"x86, ARM, others": "x86_64", "IBM Z": "s390x", "POWER": "ppc64le"}
#: Modules whose page is another's.
PAGES = {
    "fibre_channel_s390x": "fibre-channel",
    "fibre_channel_ppc64": "fibre-channel",
    "gpfs": "local",
}


def page_of(path: str) -> str:
    """Name of the page of a connector, from the dotted name of its class."""
    module = path.split(".")[-2]
    return PAGES.get(module, module.replace("_", "-"))


def rows() -> list[tuple[str, str, list[str]]]:
    """Return (protocol, page, for each platform the class's dotted name or nothing)."""
    maps = [connector.get_connector_mapping(machine) for machine in PLATFORMS.values()]
    found = []
    for protocol in sorted({name for one in maps for name in one}):
        classes = [one.get(protocol, "") for one in maps]
        found.append((protocol, page_of(next(filter(None, classes))), classes))
    return found


class ConnectorList(SphinxDirective):
    """A table of protocols, and a sentence about those that were retired."""

    def run(self) -> list[nodes.Node]:
        lines = [
            ".. list-table::",
            "   :header-rows: 1",
            "",
            "   * - protocol",
            *(f"     - {heading}" for heading in PLATFORMS),
            "     - page",
        ]
        for protocol, page, classes in rows():
            lines.append(f"   * - ``{protocol}``")
            lines += [f"     - {self._link(path)}" for path in classes]
            lines.append(f"     - {self._page(protocol, page)}")
        retired = ", ".join(f"``{name}``" for name in sorted(connector.RETIRED))
        lines += ["", f"Retired, and refused by a text that says so: {retired}."]
        container = nodes.section()
        container.document = self.state.document
        nested_parse_with_titles(
            self.state, StringList(lines, source="connector-list"), container, self.content_offset
        )
        return container.children

    def _link(self, path: str) -> str:
        return f":class:`~{path}`" if path else "—"

    def _page(self, protocol: str, page: str) -> str:
        if page in self.env.found_docs:
            return f":doc:`{page}`"
        LOG.warning("protocol %s has no page %s.rst", protocol, page, location=self.get_location())
        return "—"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Make the directive known."""
    app.add_directive("connector-list", ConnectorList)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
