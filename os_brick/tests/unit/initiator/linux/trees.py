# SPDX-License-Identifier: Apache-2.0
"""Small trees of files that stand for a kernel's, where a whole fake host would be too much."""

from __future__ import annotations

import pathlib


class Folder:
    """Writes files and links below one root."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, content: str | bytes = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())

    def link(self, name: str, target: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def directory(self, name: str) -> None:
        (self.root / name).mkdir(parents=True, exist_ok=True)


class Sysfs(Folder):
    """A folder laid out as ``/sys``."""

    def disk(self, name: str, hctl: str, *, session: int | None = None, **files: str) -> None:
        """Add a SCSI disk, below an iSCSI session or another host.

        :param files: attributes of its SCSI device.
        """
        host, channel, target, _lun = hctl.split(":")
        above = f"session{session}/" if session is not None else ""
        device = f"devices/host{host}/{above}target{host}:{channel}:{target}/{hctl}"
        for attribute, content in {"state": "running", "type": "0", **files}.items():
            self.write(f"{device}/{attribute}", content)
        self.write(f"{device}/block/{name}/size", "2048")
        self.write(f"{device}/block/{name}/dev", "8:0")
        self.directory(f"{device}/block/{name}/holders")
        self.link(f"{device}/block/{name}/device", f"../../../{hctl}")
        self.link(f"bus/scsi/devices/{hctl}", f"../../../{device}")
        self.link(f"block/{name}", f"../{device}/block/{name}")
        self.link(f"class/block/{name}", f"../../{device}/block/{name}")

    def partition(self, disk: str, number: int, dev: str = "8:1") -> None:
        """Add a partition of a disk."""
        name = f"{disk}{number}"
        self.write(f"block/{disk}/{name}/partition", str(number))
        self.write(f"block/{disk}/{name}/dev", dev)
        self.directory(f"block/{disk}/{name}/holders")
        real = (self.root / "block" / disk / name).resolve().relative_to(self.root.resolve())
        self.link(f"class/block/{name}", f"../../{real}")

    def mapping(self, name: str, label: str, uuid: str, *slaves: str) -> None:
        """Add a device-mapper device on others."""
        directory = f"devices/virtual/block/{name}"
        self.write(f"{directory}/dm/name", label)
        self.write(f"{directory}/dm/uuid", uuid)
        self.write(f"{directory}/dm/suspended", "0")
        self.write(f"{directory}/size", "2048")
        self.write(f"{directory}/dev", "252:0")
        self.directory(f"{directory}/holders")
        self.directory(f"{directory}/slaves")
        self.link(f"block/{name}", f"../{directory}")
        self.link(f"class/block/{name}", f"../../{directory}")
        for slave in slaves:
            self.link(f"{directory}/slaves/{slave}", f"/sys/block/{slave}")
            self.link(f"class/block/{slave}/holders/{name}", f"/sys/block/{name}")

    def session(self, sid: int, host: int, iqn: str, address: str, port: int = 3260) -> None:
        """Add an iSCSI session."""
        directory = f"devices/host{host}/session{sid}/iscsi_session/session{sid}"
        self.write(f"{directory}/targetname", iqn)
        self.write(f"{directory}/state", "LOGGED_IN")
        self.link(f"{directory}/device", f"../../../session{sid}")
        self.link(f"class/iscsi_session/session{sid}", f"../../{directory}")
        for kind in ("", "persistent_"):
            self.write(f"class/iscsi_connection/connection{sid}:0/{kind}address", address)
            self.write(f"class/iscsi_connection/connection{sid}:0/{kind}port", str(port))
