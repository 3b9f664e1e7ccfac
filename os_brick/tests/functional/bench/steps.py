# SPDX-License-Identifier: Apache-2.0
"""Steps by hand that the minimums of several protocols share."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..guest import kernel

_Thing = TypeVar("_Thing")


@dataclasses.dataclass(frozen=True)
class Attached:
    """A SCSI volume attached by hand."""

    path: str
    #: Kernel names.
    disks: tuple[str, ...]
    #: Name of the map, empty without one.
    map_name: str


def map_over(disks: tuple[str, ...]) -> str:
    """Return the kernel name of the map over any of these disks once it can be used."""
    for disk in disks:
        for dm in kernel.names(f"/sys/block/{disk}/holders"):
            there = kernel.read(f"/sys/block/{dm}/dm/suspended") == "0"
            if there and kernel.read(f"/sys/block/{dm}/size", "0") != "0":
                return dm
    return ""


def write_out(path: str) -> None:
    """Write out what is dirty of a device, and have it confirmed.

    By a program: a write-out may hang, and a process that is in one cannot be ended.
    """
    kernel.run("sync", path)


def side_by_side(deed: Callable[[_Thing], Any], things: Iterable[_Thing]) -> list[Any]:
    """Do the same with each thing, in threads if there are several; the first failure counts.

    :returns: what the deed returned for each, in order.
    """
    things = list(things)
    done: dict[int, Any] = {}
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            done[number] = deed(things[number])
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(1, len(things))]
    for thread in threads:
        thread.start()
    if things:
        one(0)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [done[number] for number in range(len(things))]
