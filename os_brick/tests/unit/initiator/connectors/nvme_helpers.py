# SPDX-License-Identifier: Apache-2.0
"""What the tests of the NVMe-oF connector have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from os_brick.testing import FakeHost
from os_brick.testing.nvme_storage import NvmeVolume


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


def legs(host: FakeHost, count: int = 2, *, first: int = 9) -> list[NvmeVolume]:
    """Make a namespace on a subsystem of its own for each leg of a replicated volume.

    :param first: sets the addresses of the portals apart from those of other legs.
    """
    return [
        host.nvme_subsystem(portals=[f"10.0.{first + at}.1"]).namespace() for at in range(count)
    ]


def kept_legs(host: FakeHost) -> tuple[Any, list[NvmeVolume]]:
    """Return a connector and two legs whose subsystems stay connected, by a neighbour each."""
    subsystems = [host.nvme_subsystem(portals=[f"10.0.{40 + at}.1"]) for at in range(2)]
    one = connector(host)
    for subsystem in subsystems:
        one.connect_volume(subsystem.namespace(2).properties)
    return one, [subsystem.namespace(1) for subsystem in subsystems]


def while_it_writes_out(host: FakeHost, seconds: float, *events: Callable[[], object]) -> None:
    """Have things happen, one after the other, from when ``sync`` has started.

    :param seconds: how long ``sync`` takes.
    """
    host.faults.slow("sync", seconds=seconds)

    class Started(list[tuple[str, ...]]):
        def append(self, words: tuple[str, ...]) -> None:
            super().append(words)
            if words[0] == "sync":
                for at, event in enumerate(events, 1):
                    host.after(at * seconds / (len(events) + 1), event)

    host.programs.started = Started()
