# SPDX-License-Identifier: Apache-2.0
"""LVM's disks and groups, made and looked at by LVM's own programs, not by the library."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import daemons, kernel

if TYPE_CHECKING:
    from os_brick.local_dev.lvm import LVM

_FOLDER = pathlib.Path("/run/lab-disks")
_MOUNT = pathlib.Path("/run/lab-mount")
GIB = 1 << 30


def load() -> None:
    """Load the modules that thick and thin volumes and their snapshots need, and LVM's daemon."""
    kernel.load("loop", "dm_mod", "dm_snapshot", "dm_thin_pool", "dm_mirror", "dm_raid")
    # It watches pools and snapshots, for as long as the machine is up; LVM would start it itself.
    kernel.run("dmeventd", check=False)
    daemons.outlive_the_scenario("dmeventd")


def disk(name: str, size: int = GIB) -> str:
    """Make a loop device over a sparse file in memory; return its path."""
    _FOLDER.mkdir(exist_ok=True)
    file = _FOLDER / name
    with file.open("wb") as made:
        made.truncate(size)
    return kernel.run("losetup", "--find", "--show", str(file)).strip()


def drop_disk(path: str) -> None:
    """Take a loop device away, as a disk that fails."""
    kernel.run("losetup", "--detach", path)


def remove_all() -> None:
    """Remove all groups on loop devices, and these; nothing is started if there are none."""
    if not _loops():
        return
    kernel.run("umount", str(_MOUNT), check=False)
    for group in names():
        kernel.run("vgchange", "-a", "n", "--force", group, check=False)
        kernel.run("vgremove", "-y", "-ff", group, check=False)
    kernel.run("losetup", "--detach-all", check=False)
    for file in kernel.names(_FOLDER):
        (_FOLDER / file).unlink()


def _loops() -> list[str]:
    return [
        name
        for name in kernel.names("/sys/block")
        if name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop/backing_file")
    ]


@contextlib.contextmanager
def group(name: str = "labvg", disks: int = 1, size: int = GIB) -> Iterator[list[str]]:
    """Make a group of new disks for the block, whose paths it gets."""
    load()
    paths = [disk(f"{name}-{number}", size) for number in range(disks)]
    kernel.run("vgcreate", name, *paths)
    try:
        yield paths
    finally:
        kernel.run("vgremove", "-y", "-ff", name)
        for path in paths:
            drop_disk(path)


def view(name: str = "labvg", **keywords: Any) -> LVM:
    """Return the library's view of a group."""
    from os_brick.local_dev.lvm import LVM

    return LVM(name, "sudo", **keywords)


def names() -> list[str]:
    """Return the names of all groups."""
    return kernel.run("vgs", "--noheadings", "-o", "vg_name", check=False).split()


def report(program: str, columns: str, *more: str) -> list[dict[str, str]]:
    """Return a report of LVM's own, in bytes."""
    options = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", columns)
    found = json.loads(kernel.run(program, *options, *more))
    rows: list[dict[str, str]] = next(iter(found["report"][0].values()))
    return rows


def volume(path: str) -> dict[str, str]:
    """Return what LVM says of a volume."""
    (row,) = report("lvs", "lv_name,lv_size,lv_attr,origin,pool_lv,data_percent", path)
    return row


def volumes(name: str = "labvg") -> list[str]:
    """Return the names of a group's volumes."""
    return sorted(row["lv_name"] for row in report("lvs", "lv_name", name))


def mappings() -> list[str]:
    """Return the names of all mappings of volumes."""
    found = []
    for name in kernel.names("/sys/block"):
        if kernel.read(f"/sys/block/{name}/dm/uuid").startswith("LVM-"):
            found.append(kernel.read(f"/sys/block/{name}/dm/name"))
    return sorted(found)


@contextlib.contextmanager
def mounted(device: str) -> Iterator[pathlib.Path]:
    """Make a file system on a device and mount it for the block."""
    kernel.load("ext4")
    kernel.run("mkfs.ext4", "-q", "-F", device)
    _MOUNT.mkdir(exist_ok=True)
    kernel.run("mount", device, str(_MOUNT))
    try:
        yield _MOUNT
    finally:
        kernel.run("umount", str(_MOUNT))
