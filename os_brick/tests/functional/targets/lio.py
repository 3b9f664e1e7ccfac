# SPDX-License-Identifier: Apache-2.0
"""LIO, the kernel's SCSI target: volumes in memory, iSCSI portals, LUNs, by configfs.

Sources: Documentation/target in the kernel, and the attributes' own files.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

from ..guest import kernel

CORE = pathlib.Path("/sys/kernel/config/target/core")
ISCSI = pathlib.Path("/sys/kernel/config/target/iscsi")
#: Where the volumes' data is: memory, so that the target side is fast and gone with the machine.
DATA = pathlib.Path("/dev/shm/lio")


def load() -> None:
    """Load the target's modules and mount configfs."""
    if ISCSI.exists():
        return
    kernel.load("configfs", "target_core_mod", "target_core_file", "iscsi_target_mod")
    if not CORE.exists():
        kernel.run("mount", "-t", "configfs", "configfs", "/sys/kernel/config")
    ISCSI.mkdir(exist_ok=True)
    # The default demands a secret of whoever asks which targets there are.
    kernel.write(ISCSI / "discovery_auth/enforce_discovery_auth", "0")
    DATA.mkdir(exist_ok=True)


class Volume:
    """One volume of the array: a file in memory behind a fileio backstore.

    :param name: unique in the machine.
    :param size: bytes, a multiple of 512.
    """

    def __init__(self, name: str, size: int, hba: int = 0) -> None:
        self.name = name
        self.size = size
        self.file = DATA / name
        self._store = CORE / f"fileio_{hba}" / name
        #: 32 hexadecimal digits; LIO makes the NAA identity from it.
        self.serial = hashlib.sha256(name.encode()).hexdigest()[:32]
        _set_size(self.file, size)
        self._store.mkdir(parents=True)
        kernel.write(self._store / "control", f"fd_dev_name={self.file},fd_dev_size={size}")
        kernel.write(self._store / "wwn/vpd_unit_serial", self.serial)
        kernel.write(self._store / "enable", "1")

    @property
    def store(self) -> pathlib.Path:
        """The backstore's folder in configfs."""
        return self._store

    @property
    def wwid(self) -> str:
        """Identity as udev and multipath write it: ``3`` and the NAA in hexadecimal digits.

        LIO: company id 001405, then 25 digits of the serial (target_core_spc.c).
        """
        return f"36001405{self.serial[:25]}"

    def read(self, offset: int, length: int) -> bytes:
        """Return what the array holds of this volume."""
        with self.file.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, offset: int, data: bytes) -> None:
        """Put data into the volume on the array's side."""
        with self.file.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def grow(self, size: int) -> None:
        """Make the volume larger on the array; initiators learn of it when they ask."""
        _set_size(self.file, size)
        kernel.write(self._store / "control", f"fd_dev_size={size}")
        self.size = size

    def remove(self) -> None:
        """Take the volume away; it must not be mapped any more."""
        self._store.rmdir()
        self.file.unlink(missing_ok=True)


class Target:
    """One iSCSI target: a name, its portals, its LUNs, every initiator welcome.

    :param iqn: the target's name.
    :param portals: ``address:port`` each; IPv6 addresses in brackets.
    :param chap: (user, password) that a session has to give.
    """

    def __init__(
        self, iqn: str, portals: Sequence[str], chap: tuple[str, str] | None = None
    ) -> None:
        load()
        self.iqn = iqn
        self._group = ISCSI / iqn / "tpgt_1"
        self._group.mkdir(parents=True)
        self.portals: list[str] = []
        for portal in portals:
            self.listen(portal)
        attributes = {
            "generate_node_acls": 1,
            "cache_dynamic_acls": 1,
            "demo_mode_write_protect": 0,
            "authentication": 1 if chap else 0,
        }
        for name, value in attributes.items():
            kernel.write(self._group / "attrib" / name, str(value))
        if chap:
            kernel.write(self._group / "auth/userid", chap[0])
            kernel.write(self._group / "auth/password", chap[1])
        self.luns: dict[int, Volume] = {}
        self.enable()

    def enable(self) -> None:
        """Let initiators log in."""
        kernel.write(self._group / "enable", "1")

    def disable(self) -> None:
        """End all sessions on the target's side and refuse new ones."""
        kernel.write(self._group / "enable", "0")

    def listen(self, portal: str) -> None:
        """Open one more portal."""
        (self._group / "np" / portal).mkdir()
        self.portals.append(portal)

    def unlisten(self, portal: str) -> None:
        """Close a portal: from then on connections to it are refused."""
        (self._group / "np" / portal).rmdir()
        self.portals.remove(portal)

    def map(self, lun: int, volume: Volume) -> None:
        """Show ``volume`` to the initiators as ``lun``."""
        folder = self._group / "lun" / f"lun_{lun}"
        folder.mkdir()
        os.symlink(volume.store, folder / "storage")
        self.luns[lun] = volume

    def unmap(self, lun: int) -> None:
        """Take a LUN away from the initiators, whether they use it or not."""
        folder = self._group / "lun" / f"lun_{lun}"
        for name in kernel.names(folder):
            if (folder / name).is_symlink():
                (folder / name).unlink()
        folder.rmdir()
        del self.luns[lun]

    def remove(self) -> None:
        """Take the target away with its portals and LUNs; the volumes stay."""
        remove_target(self._group)


def remove_target(group: pathlib.Path) -> None:
    """Take a target portal group (``…/IQN/tpgt_1``) away, and its target."""
    kernel.write(group / "enable", "0")
    for lun in kernel.names(group / "lun"):
        for name in kernel.names(group / "lun" / lun):
            if (group / "lun" / lun / name).is_symlink():
                (group / "lun" / lun / name).unlink()
    for kind in ("acls", "lun", "np"):
        for name in kernel.names(group / kind):
            (group / kind / name).rmdir()
    group.rmdir()
    group.parent.rmdir()


def remove_all(keep: Iterable[str] = ()) -> None:
    """Take every iSCSI target and every volume of the machine away."""
    for iqn in kernel.names(ISCSI):
        if (ISCSI / iqn).is_dir() and iqn != "discovery_auth" and iqn not in keep:
            remove_target(ISCSI / iqn / "tpgt_1")
    for hba in kernel.names(CORE):
        if not hba.startswith("fileio_"):
            continue
        for name in kernel.names(CORE / hba):
            store = CORE / hba / name
            if store.is_dir() and name not in ("hba_info", "hba_mode"):
                store.rmdir()
                (DATA / name).unlink(missing_ok=True)


def _set_size(file: pathlib.Path, size: int) -> None:
    DATA.mkdir(exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(handle, size)
    finally:
        os.close(handle)
