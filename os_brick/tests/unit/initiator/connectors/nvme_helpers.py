# SPDX-License-Identifier: Apache-2.0
"""What the tests of the NVMe-oF connector have in common."""

from __future__ import annotations

from typing import Any

from os_brick.testing import FakeHost


def connector(host: FakeHost, **keywords: Any) -> Any:
    """Return a connector with multipath, unless asked for otherwise."""
    keywords.setdefault("use_multipath", True)
    return host.connector("NVMEOF", **keywords)


def connects(host: FakeHost) -> list[tuple[str, ...]]:
    """Return the commands that connected, in order."""
    return [command for command in host.started if command[:2] == ("nvme", "connect")]


def option(command: tuple[str, ...], name: str) -> str | None:
    """Return the value of an option of a command; None if it has none."""
    return command[command.index(name) + 1] if name in command else None


def controllers(host: FakeHost) -> list[str]:
    """Return the names of the controllers."""
    return [one.name for one in host.nvme.controllers]


def kinds(host: FakeHost) -> list[str]:
    """Return what the privileged verbs did, in order."""
    return [change.kind for change in host.changes]
