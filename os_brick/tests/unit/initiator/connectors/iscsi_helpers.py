# SPDX-License-Identifier: Apache-2.0
"""What the tests of the iSCSI connector have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from os_brick.testing import FakeHost
from os_brick.testing.scsi import Disk


def commands(host: FakeHost, *words: str) -> list[tuple[str, ...]]:
    """Return the commands that were started and hold all these words, in order."""
    return [command for command in host.started if all(word in command for word in words)]


def changes(host: FakeHost, kind: str) -> list[tuple[str, str]]:
    """Return what and text of the sysfs changes of a kind, in order."""
    return [(one.what, one.text) for one in host.changes if one.kind == kind]


def disk_names(host: FakeHost) -> list[str]:
    """Return the names of the SCSI disks."""
    return [disk.name for disk in host.disks()]


def disk_at(host: FakeHost, address: str) -> Disk:
    """Return the disk that came through the portal at an address."""
    for disk in host.disks():
        session = disk.device.target.transport if disk.device is not None else None
        if getattr(session, "portal", None) is host.network.portal(address, 3260):
            return disk
    raise AssertionError(f"no disk through {address}")


def side_by_side(host: FakeHost, *tasks: Callable[[], Any]) -> list[Any]:
    """Run tasks in threads; return their results or exceptions in their order."""
    results: list[Any] = [None] * len(tasks)

    def run(number: int, task: Callable[[], Any]) -> None:
        try:
            results[number] = task()
        except Exception as exc:  # noqa: BLE001 - told to the test as the task's result
            results[number] = exc

    threads = [
        threading.Thread(target=run, args=(number, task), daemon=True)
        for number, task in enumerate(tasks)
    ]
    for thread in threads:
        thread.start()
    with host.idle(*threads):
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a call has not returned"
    return results
