# SPDX-License-Identifier: Apache-2.0
"""The bare minimum for NVMe over Fabrics: a program for each portal, each way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..guest import kernel

_CONTROLLERS = "/sys/class/nvme-fabrics/ctl"


def attach(properties: dict[str, Any]) -> str:
    """Connect all portals at once and return the device with the volume's UUID."""

    def connect(portal: Sequence[Any]) -> None:
        address, port, transport = map(str, portal)
        where = ("-t", transport, "-a", address, "-s", port, "-n", properties["target_nqn"])
        kernel.run("nvme", "connect", *where, "-l", "-1")

    _side_by_side(connect, properties["portals"])
    return kernel.wait_for(lambda: _disk(properties["vol_uuid"]), "the namespace")


def detach(properties: dict[str, Any]) -> None:
    """Write out what is dirty and disconnect the controllers."""
    handle = os.open(_disk(properties["vol_uuid"]), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    names = [
        name
        for name in kernel.names(_CONTROLLERS)
        if kernel.read(f"{_CONTROLLERS}/{name}/subsysnqn") == properties["target_nqn"]
    ]
    _side_by_side(lambda name: kernel.run("nvme", "disconnect", "-d", name), names)


def _disk(uuid: str) -> str:
    for name in kernel.names("/sys/block"):
        shown = kernel.read(f"/sys/block/{name}/uuid") if name.startswith("nvme") else ""
        if shown == uuid and os.path.exists(f"/dev/{name}"):
            return f"/dev/{name}"
    return ""


def _side_by_side(deed: Callable[[Any], object], things: Sequence[Any]) -> None:
    """Do the same with each thing, in threads; the first failure counts."""
    failures: list[BaseException] = []

    def one(thing: Any) -> None:
        try:
            deed(thing)
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)

    threads = [threading.Thread(target=one, args=(thing,)) for thing in things]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
