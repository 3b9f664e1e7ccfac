# SPDX-License-Identifier: Apache-2.0
"""The bare minimum for NVMe over Fabrics: a program for each portal, and one for all to go."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from ..guest import kernel
from .steps import side_by_side, write_out

_DISCONNECTING = threading.Lock()


def attach(properties: dict[str, Any]) -> str:
    """Connect all portals at once and return the device with the volume's UUID."""

    def connect(portal: Sequence[Any]) -> None:
        address, port, transport = map(str, portal)
        where = ("-t", transport, "-a", address, "-s", port, "-n", properties["target_nqn"])
        kernel.run("nvme", "connect", *where, "-l", "-1")

    side_by_side(connect, properties["portals"])
    return kernel.wait_for(lambda: _disk(properties["vol_uuid"]), "the namespace")


def detach(properties: dict[str, Any]) -> None:
    """Write out what is dirty and disconnect all controllers of the subsystem."""
    write_out(_disk(properties["vol_uuid"]))
    # One at a time: it reads the controllers of all subsystems, and crashes over one that goes.
    with _DISCONNECTING:
        kernel.run("nvme", "disconnect", "-n", properties["target_nqn"])


def _disk(uuid: str) -> str:
    for name in kernel.names("/sys/block"):
        shown = kernel.read(f"/sys/block/{name}/uuid") if name.startswith("nvme") else ""
        if shown == uuid and os.path.exists(f"/dev/{name}"):
            return f"/dev/{name}"
    return ""
