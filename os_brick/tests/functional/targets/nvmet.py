# SPDX-License-Identifier: Apache-2.0
"""nvmet, the kernel's NVMe over Fabrics target: subsystems, namespaces in memory, ports with ANA.

By configfs, see the kernel's drivers/nvme/target/configfs.c.  A namespace on a file of tmpfs has
blocks of 4096 bytes; one on a loop device has 512.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import uuid
from collections.abc import Sequence

from ..guest import kernel

ROOT = pathlib.Path("/sys/kernel/config/nvmet")
DATA = pathlib.Path("/dev/shm/nvmet")
PARAMETER = "/sys/module/nvme_core/parameters/multipath"
#: In the order in which they can be taken out again.
_MODULES = (
    "nvme_tcp",
    "nvme_rdma",
    "nvmet_tcp",
    "nvmet_rdma",
    "nvmet",
    "nvme_fabrics",
    "nvme_core",
)
#: The only ANA group that there is without being asked for; more are made as they are needed.
_FIRST_GROUP = 1
RDMA_ADDRESS = "10.99.0.1"


def load(*, native_multipath: bool = True, host: bool = True) -> None:
    """Load host and target drivers, the former with or without native multipath.

    :param host: False does not load the host's drivers: the library has to.
    """
    value = "Y" if native_multipath else "N"
    if (kernel.read(PARAMETER) or value) != value:
        unload()
    if not ROOT.exists() or not kernel.read(PARAMETER):
        kernel.load("configfs")
        if not pathlib.Path("/sys/kernel/config/target").exists() and not ROOT.parent.is_mount():
            kernel.run("mount", "-t", "configfs", "configfs", "/sys/kernel/config")
        kernel.run("modprobe", "nvme_core", f"multipath={value}")
        kernel.load("nvmet", "nvmet_tcp", "loop")
    if host:
        kernel.load("nvme_tcp")
    DATA.mkdir(exist_ok=True)


def unload() -> None:
    """Take all drivers out; nothing may be connected or exported."""
    remove_all()
    for module in _MODULES:
        if pathlib.Path("/sys/module", module).exists():
            kernel.run("modprobe", "-r", module)


class Namespace:
    """One volume of the array, as a namespace of a subsystem.

    :param size: bytes, a multiple of 4096.
    :param blocks: 4096 or 512 bytes in a block.
    """

    def __init__(self, subsystem: Subsystem, nsid: int, size: int, blocks: int, group: int) -> None:
        self.subsystem = subsystem
        self.nsid = nsid
        self.name = f"{subsystem.nqn.rpartition(':')[2]}.{nsid}"
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, self.name))
        self.nguid = str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name))
        self.size = size
        self.group = group
        self.file = DATA / self.name
        self._folder = subsystem.folder / "namespaces" / str(nsid)
        self._loop = ""
        DATA.mkdir(exist_ok=True)
        _set_size(self.file, size)
        if blocks == 512:
            self._loop = kernel.run("losetup", "-f", "--show", str(self.file)).strip()
        self.map()

    def map(self) -> None:
        """Show it to the hosts."""
        self._folder.mkdir()
        kernel.write(self._folder / "device_path", self._loop or str(self.file))
        kernel.write(self._folder / "device_uuid", self.uuid)
        kernel.write(self._folder / "device_nguid", self.nguid)
        if not self._loop:
            kernel.write(self._folder / "buffered_io", "1")
        kernel.write(self._folder / "ana_grpid", str(self.group))
        kernel.write(self._folder / "enable", "1")

    def unmap(self) -> None:
        """Take it away from the hosts, whether they use it or not."""
        kernel.write(self._folder / "enable", "0")
        self._folder.rmdir()

    def become_another(self) -> None:
        """Give its number to another volume: new identity, nothing in it."""
        self.unmap()
        self.uuid, self.nguid = str(uuid.uuid4()), str(uuid.uuid4())
        _set_size(self.file, 0)
        _set_size(self.file, self.size)
        self.map()

    def read(self, offset: int, length: int) -> bytes:
        """Return what the array holds of this volume."""
        if self._loop:
            # What nvmet wrote to the loop device may still be in that device's memory.
            kernel.run("blockdev", "--flushbufs", self._loop)
        with self.file.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, offset: int, data: bytes) -> None:
        """Put data into the volume on the array's side."""
        with self.file.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def grow(self, size: int) -> None:
        """Make it larger; hosts are told."""
        _set_size(self.file, size)
        if self._loop:
            kernel.run("losetup", "-c", self._loop)
        kernel.write(self._folder / "revalidate_size", "1")
        self.size = size

    def remove(self) -> None:
        """Take it away with its data."""
        if self._folder.exists():
            self.unmap()
        if self._loop:
            kernel.run("losetup", "-d", self._loop)
        self.file.unlink(missing_ok=True)


class Port:
    """Where subsystems are reached: an address, and the ANA state of each group there."""

    def __init__(self, number: int, address: str, port: int, transport: str = "tcp") -> None:
        self.address = address
        self.port = port
        self.transport = transport
        self._folder = ROOT / "ports" / str(number)
        self._folder.mkdir()
        family = "ipv6" if ":" in address else "ipv4"
        for name, value in (
            ("addr_adrfam", family),
            ("addr_traddr", address),
            ("addr_trsvcid", str(port)),
            ("addr_trtype", transport),
        ):
            kernel.write(self._folder / name, value)

    @property
    def text(self) -> str:
        """``address:port``, for faults of the network."""
        return f"{self.address}:{self.port}"

    def export(self, subsystem: Subsystem) -> None:
        """Let a subsystem be reached here."""
        os.symlink(subsystem.folder, self._folder / "subsystems" / subsystem.nqn)

    def withdraw(self, nqn: str) -> None:
        """Let it not be reached here any more: connections end, new ones are refused."""
        (self._folder / "subsystems" / nqn).unlink(missing_ok=True)

    def set_ana(self, state: str, group: int = _FIRST_GROUP) -> None:
        """Set how namespaces of a group can be reached here, such as ``inaccessible``."""
        folder = self._folder / "ana_groups" / str(group)
        if not folder.exists():
            folder.mkdir()
        kernel.write(folder / "ana_state", state)


class Subsystem:
    """One subsystem, every host welcome.

    :param ports: where it is reached.
    """

    def __init__(self, nqn: str, ports: Sequence[Port]) -> None:
        self.nqn = nqn
        self.ports = list(ports)
        self.folder = ROOT / "subsystems" / nqn
        self.folder.mkdir()
        kernel.write(self.folder / "attr_allow_any_host", "1")
        self.namespaces: dict[int, Namespace] = {}
        for port in ports:
            port.export(self)

    def namespace(
        self,
        nsid: int = 0,
        size: int = 64 << 20,
        blocks: int = 4096,
        group: int = _FIRST_GROUP,
    ) -> Namespace:
        """Make a namespace; with the next free number if none is given."""
        number = nsid or max(self.namespaces, default=0) + 1
        self.namespaces[number] = Namespace(self, number, size, blocks, group)
        return self.namespaces[number]


def ports(count: int, base: int = 4420, first: int = 2) -> list[Port]:
    """Return ports on 127.0.0.2, 127.0.0.3 …; those that are there are used again."""
    return [port(f"127.0.0.{first + number}", base) for number in range(count)]


def port(address: str, number: int, transport: str = "tcp") -> Port:
    """Return the port of an address; made if there is none."""
    for name in kernel.names(ROOT / "ports"):
        folder = ROOT / "ports" / name
        there = (kernel.read(folder / "addr_traddr"), kernel.read(folder / "addr_trsvcid"))
        if there == (address, str(number)) and kernel.read(folder / "addr_trtype") == transport:
            found = Port.__new__(Port)
            found.address, found.port, found.transport = address, number, transport
            found._folder = folder
            return found
    free = next(n for n in range(1, 1000) if not (ROOT / "ports" / str(n)).exists())
    return Port(free, address, number, transport)


def rdma_port() -> Port:
    """Return a port over soft RoCE: a dummy interface, since the loopback cannot do it."""
    if not pathlib.Path("/sys/class/infiniband/rxe0").exists():
        kernel.load("rdma_rxe", "dummy", "nvmet_rdma")
        kernel.run("ip", "link", "add", "rdma0", "type", "dummy")
        kernel.run("ip", "address", "add", f"{RDMA_ADDRESS}/24", "dev", "rdma0")
        kernel.run("ip", "link", "set", "rdma0", "up")
        kernel.run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "rdma0")
    kernel.load("nvmet_rdma")
    return port(RDMA_ADDRESS, 4420, "rdma")


def remove_all() -> None:
    """Take every port, subsystem, namespace and loop device of the lab away."""
    for name in kernel.names(ROOT / "ports"):
        folder = ROOT / "ports" / name
        for nqn in kernel.names(folder / "subsystems"):
            (folder / "subsystems" / nqn).unlink()
        for group in kernel.names(folder / "ana_groups"):
            if group != str(_FIRST_GROUP):
                (folder / "ana_groups" / group).rmdir()
        _rmdir(folder)
    for nqn in kernel.names(ROOT / "subsystems"):
        folder = ROOT / "subsystems" / nqn
        for nsid in kernel.names(folder / "namespaces"):
            kernel.write(folder / "namespaces" / nsid / "enable", "0")
            (folder / "namespaces" / nsid).rmdir()
        _rmdir(folder)
    for line in kernel.run("losetup", "-l", "-n", "-O", "NAME,BACK-FILE").splitlines():
        loop, _, file = line.partition(" ")
        if str(DATA) in file:
            kernel.run("losetup", "-d", loop)
    for file in kernel.names(DATA):
        (DATA / file).unlink(missing_ok=True)


def _rmdir(folder: pathlib.Path) -> None:
    """Remove a folder of configfs once nobody uses it any more."""

    def gone() -> bool:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    kernel.wait_for(gone, f"{folder} can be removed", 30)


def _set_size(file: pathlib.Path, size: int) -> None:
    with contextlib.closing(open(file, "ab")) as handle:
        os.truncate(handle.fileno(), size)
