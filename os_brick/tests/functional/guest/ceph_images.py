# SPDX-License-Identifier: Apache-2.0
"""What an RBD scenario looks at on the host."""

from __future__ import annotations

import os
import pathlib
import tempfile

from . import kernel

CONFS = pathlib.Path("/run/os-brick")


def mapped() -> list[str]:
    """Return what the kernel has mapped, as ``N pool/image@snapshot``."""
    found = []
    for number in kernel.names("/sys/bus/rbd/devices"):
        where = f"/sys/bus/rbd/devices/{number}"
        pool, name, snapshot = (
            kernel.read(f"{where}/{key}") for key in ("pool", "name", "current_snap")
        )
        found.append(f"{number} {pool}/{name}@{snapshot}")
    return found


def secret_files() -> list[str]:
    """Return configuration files that the library has made, for handles and for mappings."""
    folder = tempfile.gettempdir()
    handles = [name for name in kernel.names(folder) if name.startswith("brickrbd_")]
    return [
        *(os.path.join(folder, name) for name in handles),
        *(str(CONFS / name) for name in kernel.names(CONFS)),
    ]
