# SPDX-License-Identifier: Apache-2.0
"""The host in a folder: it puts the parts together and is what tests talk to."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from os_brick.initiator.linux import changes as real_changes
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.locking import Locks
from os_brick.initiator.linux.nvme_changes import NvmeChanges, ProgramNvme
from os_brick.initiator.linux.programs import Programs as ProgramsDoor
from os_brick.testing.block import BlockDevice, Devices, Opening, Partition
from os_brick.testing.ceph import Ceph
from os_brick.testing.changes import FakeChanges
from os_brick.testing.cryptsetup import Blkid, Cryptsetup
from os_brick.testing.device_mapper import DeviceMapper, Dmsetup, Mapping
from os_brick.testing.faults import Delays, Faults
from os_brick.testing.fc_storage import FcArray
from os_brick.testing.fibre_channel import FibreChannel, Hba
from os_brick.testing.iscsiadm import Iscsiadm
from os_brick.testing.leftovers import Inventory
from os_brick.testing.lvm import Lvm
from os_brick.testing.lvm_programs import LvmPrograms
from os_brick.testing.md import Md, Mdadm
from os_brick.testing.multipath import Multipathd
from os_brick.testing.multipath_tools import Multipath, MultipathdClient
from os_brick.testing.network import FakeNetwork
from os_brick.testing.nvme import NvmeLayer
from os_brick.testing.nvme_changes import FakeNvme
from os_brick.testing.nvme_cli import EtcNvme, Identity, NvmeCli, RootFilesystem, modprobe
from os_brick.testing.nvme_storage import NamespaceUnit, Subsystem
from os_brick.testing.open_iscsi import Database, Iscsid
from os_brick.testing.programs import Coreutils, Programs
from os_brick.testing.scsi import Disk, ScsiLayer
from os_brick.testing.sessions import Session, Sessions
from os_brick.testing.shares import Shares
from os_brick.testing.storage import Chap, IscsiTarget, Unit, parse_portal
from os_brick.testing.udev import Udev
from os_brick.testing.world import Change, Loss, World
from os_brick.testing.zfcp import Zfcp

#: What multipathd sets as a session's replacement timeout when its disk joins a map
#: (fast_io_fail_tmo).
_FAST_IO_FAIL_S = 5


class FakeHost:
    """A Linux host with iSCSI, Fibre Channel and multipath, its networks and arrays, all in one
    folder.

    :param root: an empty folder, which is left as it is at the end. None: one that exists as long
        as the host, in memory where there is room.
    """

    def __init__(self, root: str | None = None) -> None:
        self._world = World(root)
        world = self._world
        self.network = FakeNetwork(world)
        self.devices = Devices(world)
        self.scsi = ScsiLayer(world, self.devices)
        self.sessions = Sessions(world, self.scsi)
        self.fc = FibreChannel(world, self.scsi)
        self.zfcp = Zfcp(world, self.fc, self.scsi)
        self.nvme = NvmeLayer(world, self.devices, self.network)
        self.nvme_identity = Identity()
        self.md = Md(world, self.devices)
        self.mapper = DeviceMapper(world, self.devices)
        self.lvm = Lvm(world, self.devices, self.mapper)
        self.node_records = Database()
        self.iscsid = Iscsid(world, self.network, self.sessions)
        self.multipathd = Multipathd(world, self.mapper)
        self.udev = Udev(world)
        self.programs = Programs(world)
        self.coreutils = Coreutils(world, self.devices, self.scsi, self.zfcp)
        self.ceph = Ceph(world, self.devices)
        self.shares = Shares(world, self.devices)
        self._connect_parts()
        self._install_programs()
        self._numbers = itertools.count(1)
        self._inventory = Inventory(
            world,
            self.devices,
            self.mapper,
            self.sessions,
            self.node_records,
            self.iscsid,
            self.multipathd,
            self.zfcp,
        )
        self._inventory.more += [self.nvme.inventory, self.ceph.inventory, self.shares.inventory]
        #: The ``nvme`` command; its ``version`` decides what it says and how it ends.
        self.nvme_cli = NvmeCli(world, self.nvme, self.nvme_identity)
        self._install_nvme()
        self._before: list[str] | None = None
        self.host = self._make_host(foreign=False)
        #: The same host as a service sees it that supplies its own execute function: all by
        #: programs.
        self.foreign_host = self._make_host(foreign=True)

    def _connect_parts(self) -> None:
        self.scsi.listeners.append(self.udev.hear)
        self.mapper.listeners.append(self.udev.hear)
        self.udev.listeners.append(self.multipathd.hear)
        self.udev.is_for_multipath = self.multipathd.is_wanted
        os.makedirs(self._world.run.path("udev/data"), exist_ok=True)
        self.multipathd.when_joined.append(self._joined)
        os.makedirs(self._world.sys.path("class/iscsi_session"), exist_ok=True)
        os.makedirs(self._world.sys.path("class/block"), exist_ok=True)
        os.makedirs(self._world.dev.path("disk/by-id"), exist_ok=True)
        os.makedirs(self._world.dev.path("disk/by-path"), exist_ok=True)
        os.makedirs(self._world.dev.path("mapper"), exist_ok=True)

    def _joined(self, disk: Disk) -> None:
        transport = disk.device.target.transport if disk.device is not None else None
        if isinstance(transport, Session):
            self.sessions.set_recovery(transport, _FAST_IO_FAIL_S)

    def _install_programs(self) -> None:
        world, devices, mapper, daemon = self._world, self.devices, self.mapper, self.multipathd
        for name, program in self.coreutils.programs().items():
            self.programs.install(name, program)
        self.programs.install(
            "iscsiadm", Iscsiadm(world, self.network, self.sessions, self.node_records, self.iscsid)
        )
        self.programs.install("multipath", Multipath(world, devices, mapper, daemon))
        self.programs.install("multipathd", MultipathdClient(world, devices, mapper, daemon))
        self.programs.install("dmsetup", Dmsetup(world, mapper))
        self.programs.install("cryptsetup", Cryptsetup(world, devices, mapper))
        self.programs.install("blkid", Blkid(devices))
        for name, program in LvmPrograms(self.lvm, self.programs.call).programs().items():
            self.programs.install(name, program)
        for name, program in (self.ceph.programs() | self.shares.programs()).items():
            self.programs.install(name, program)
        self.coreutils.files["/etc/iscsi/initiatorname.iscsi"] = (
            "## DO NOT EDIT OR REMOVE THIS FILE!\nInitiatorName=iqn.2010-10.org.example:host\n"
        )

    def _install_nvme(self) -> None:
        etc = EtcNvme(self.nvme_identity)
        for name, program in self.coreutils.programs().items():
            if name in ("cat", "tee", "ln", "rm"):
                self.programs.install(name, etc.around(program))
        self.programs.install("mkdir", etc.around(self.shares.mkdir))
        self.programs.install("mv", etc.alone)
        root = RootFilesystem()
        self.programs.install("findmnt", root.findmnt)
        self.programs.install("dmidecode", etc.dmidecode)
        self.programs.install("blkid", root.around(Blkid(self.devices)))
        self.programs.install("nvme", self.nvme_cli)
        self.programs.install("modprobe", modprobe(self.nvme))
        self.programs.install("mdadm", Mdadm(self._world, self.devices, self.md))
        self.coreutils.writers["class/nvme-fabrics/ctl/"] = self.nvme.write_attribute

    def _make_host(self, *, foreign: bool) -> Host:
        world = self._world
        door = ProgramsDoor(self._execute, None)
        changes: real_changes.Changes = FakeChanges(
            world,
            self.scsi,
            self.devices,
            self.node_records,
            self.coreutils,
            self.zfcp,
            self.programs,
        )
        if foreign:
            changes = real_changes.ProgramChanges(door, world.sysfs)
        return Host(
            programs=door,
            changes=changes,
            sysfs=world.sysfs,
            proc=world.procfs,
            dev=world.devfs,
            run=world.runfs,
            etc=world.etcfs,
            clock=world.clock,
            locks=Locks(world.lock_folder),
            network=self.network,
            nvme=self._nvme_changes(door, foreign),
        )

    def _nvme_changes(self, door: ProgramsDoor, foreign: bool) -> NvmeChanges:
        if foreign:
            return ProgramNvme(door, self._world.sysfs)
        return FakeNvme(self._world, self.nvme, self.devices, self.nvme_identity)

    def _execute(self, *words: str, **keywords: Any) -> tuple[str, str]:
        self.remember()
        return self.programs.execute(*words, **keywords)

    # -- doors -----------------------------------------------------------------------------
    @property
    def execute(self) -> Callable[..., tuple[str, str]]:
        """The execute function, for a service that supplies its own."""
        return self._execute

    def connector(self, protocol: str = "ISCSI", *, foreign: bool = False, **keywords: Any) -> Any:
        """Return a connector of the library that works on this host.

        :param foreign: as with an execute function of the service's own: every change by a program.
        :param keywords: for the factory: ``use_multipath``, ``device_scan_attempts``, ``transport``
            …
        """
        from os_brick.initiator import connector

        self.remember()
        if foreign:
            keywords["execute"] = self.execute
        return connector.InitiatorConnector.factory(protocol, None, host=self.host, **keywords)

    # -- time and faults -------------------------------------------------------------------
    @property
    def now(self) -> float:
        """Virtual seconds since the host was made."""
        return self._world.clock.now()

    @property
    def delays(self) -> Delays:
        """How long things take here."""
        return self._world.delays

    @property
    def faults(self) -> Faults:
        """What is to go wrong."""
        return self._world.faults

    def at(self, seconds: float, action: Callable[[], object]) -> Callable[[], None]:
        """Have something happen at a virtual time; returns a function that takes it back."""
        return self._world.after(seconds - self.now, action)

    def after(self, seconds: float, action: Callable[[], object]) -> Callable[[], None]:
        """Have something happen in so many virtual seconds; returns a function that takes it
        back."""
        return self._world.after(seconds, action)

    def pass_time(self, seconds: float) -> None:
        """Wait in virtual time."""
        self._world.spend(seconds)

    def idle(self, *threads: threading.Thread) -> contextlib.AbstractContextManager[None]:
        """Say that this thread only waits for others (these, if they are named) in the block;
        virtual time goes faster then."""
        return self._world.clock.idle(*threads)

    # -- the array -------------------------------------------------------------------------
    def iscsi_target(
        self,
        portals: int | Sequence[str] = 1,
        *,
        iqn: str | None = None,
        iqns: Sequence[str] | None = None,
        shared_iqn: bool = True,
        chap: tuple[str, str] | None = None,
        discovery_chap: tuple[str, str] | None = None,
    ) -> IscsiTarget:
        """Make a target.

        :param portals: their number (10.0.0.1, 10.0.0.2 …; the same for every target) or their
            texts.
        :param iqn: its name; made up if None.
        :param iqns: a name for each portal, instead.
        :param shared_iqn: False makes up a name for each portal.
        :param chap: (user name, password) to be given at log-in.
        """
        if isinstance(portals, int):
            portals = [f"10.0.0.{number}:3260" for number in range(1, portals + 1)]
        found = [self.network.portal(*parse_portal(text)) for text in portals]
        name = iqn or f"iqn.2010-10.org.example:target-{next(self._numbers)}"
        if iqns is None:
            iqns = [
                name if shared_iqn else f"{name}.{number}" for number in range(1, len(found) + 1)
            ]
        target = IscsiTarget(
            self._world,
            self._unit,
            found,
            iqns,
            Chap(*chap) if chap else None,
            Chap(*discovery_chap) if discovery_chap else None,
        )
        self.network.targets.append(target)
        return target

    def fc_hbas(self, count: int = 1, kind: str = "pci") -> list[Hba]:
        """Put Fibre Channel ports into the host (``pci``, ``fcoe``, ``arm``, ``vio``)."""
        return [self.fc.add_hba(kind) for _ in range(count)]

    def fc_array(self, ports: int | Sequence[str] = 1, *, seen: bool = True) -> FcArray:
        """Make an array with Fibre Channel ports.

        :param ports: their number, or their WWPNs.
        :param seen: all ports that the host has by now see them; see :meth:`FibreChannel.zone`.
        """
        if isinstance(ports, int):
            first = next(self._numbers)
            ports = [f"50060e80{first:04x}{port:04x}" for port in range(ports)]
        array = FcArray(self._world, self._unit, ports)
        for hba in self.fc.hbas if seen else ():
            for port in array.ports:
                driver = self.zfcp if hba.kind == "zfcp" else self.fc
                driver.zone(hba, port)
        return array

    def nvme_subsystem(
        self,
        portals: int | Sequence[str] = 1,
        *,
        nqn: str | None = None,
        transport: str = "tcp",
        port: int = 4420,
        connected: bool = False,
    ) -> Subsystem:
        """Make an NVMe subsystem.

        :param portals: their number (10.0.1.1, 10.0.1.2 …; the same for every subsystem) or their
            addresses.
        :param nqn: its name; made up if None.
        :param connected: this host has a live controller through each portal already, as another
            volume's attach has made it.
        """
        if isinstance(portals, int):
            portals = [f"10.0.1.{number}" for number in range(1, portals + 1)]
        made = Subsystem(
            nqn or f"nqn.2014-08.org.example:subsystem-{next(self._numbers)}",
            [self.network.portal(address, port) for address in portals],
            transport,
            self._world,
            self._namespace,
        )
        self.nvme.subsystems.append(made)
        if connected:
            with self._world.lock:
                for index in range(len(made.portals)):
                    identity = self.nvme_identity
                    self.nvme.add(made, index, identity.nqn, identity.host_id)
        return made

    def _namespace(self, *, size: int, **more: Any) -> NamespaceUnit:
        serial = more.pop("serial", f"{next(self._numbers):032x}")
        return NamespaceUnit("", serial, size, **more)

    def _unit(self, *, size: int, wwid: str | None, device_type: int, **more: Any) -> Unit:
        number = next(self._numbers)
        serial = more.pop("serial", f"{number:032x}")
        wwid = f"36001405{number:025x}" if wwid is None else wwid
        return Unit(wwid, serial, size, device_type=device_type, **more)

    # -- using devices ---------------------------------------------------------------------
    def open(self, device: str, *, exclusive: bool = False) -> Opening:
        """Open a device as some process does, until it is closed."""
        return self.devices.open(device, exclusive=exclusive)

    def write(self, device: str, data: bytes) -> None:
        """Leave data in the page cache of a device: only an fsync brings it to the storage."""
        with self._world.lock:
            self.devices.get(device).dirty.append(data)

    def mount(self, device: str, where: str) -> None:
        """Mount a device."""
        self.devices.mount(device, where)

    def unmount(self, where: str) -> None:
        """Unmount it."""
        self.devices.unmount(where)

    def add_partition(self, device: str, number: int) -> Partition:
        """Have a partition of a disk appear."""
        with self._world.lock:
            return self.devices.add_partition(self.devices.get(device), number)

    def stale_link(self, link: str, device: str) -> None:
        """Leave a link below ``/dev`` that leads to a device (or nowhere) for the wrong reasons."""
        self._world.dev.link(link.removeprefix("/dev/"), device.removeprefix("/dev/"))

    def put_on_top(self, device: str, name: str, uuid: str = "LVM-aB3") -> Mapping:
        """Put an LVM volume (or by its uuid a crypt mapping) on a device."""
        with self._world.lock:
            return self.mapper.create(Mapping, name, uuid, [self.devices.get(device)])

    def take_off(self, mapping: Mapping) -> None:
        """Remove a mapping."""
        with self._world.lock:
            self.mapper.remove(mapping)

    def device(self, path: str) -> BlockDevice:
        """Return a block device of the model."""
        with self._world.lock:
            return self.devices.get(path)

    def disks(self) -> list[Disk]:
        """Return the SCSI disks by name."""
        with self._world.lock:
            found = [self.devices.find(f"/dev/{name}") for name in self.devices.names()]
            return [one for one in found if isinstance(one, Disk)]

    def restart_multipathd(self) -> None:
        """Stop multipathd if it runs, and start it."""
        self.multipathd.stop()
        self.multipathd.start(self.disks())

    # -- what was done ---------------------------------------------------------------------
    @property
    def started(self) -> list[tuple[str, ...]]:
        """Every program that was started, in order."""
        return self.programs.started

    @property
    def changes(self) -> list[Change]:
        """Every change that was not made by a program of its own, in order."""
        return self._world.changes

    @property
    def journal(self) -> list[str]:
        """Programs and changes in one list, each as a line, in the order they began."""
        return self._world.journal

    @property
    def lost(self) -> list[Loss]:
        """Written data that will never reach its storage."""
        return self._world.lost

    def forget(self) -> None:
        """Forget what was done so far, to look at what comes."""
        with self._world.lock:
            self.programs.started.clear()
            self._world.changes.clear()
            self._world.journal.clear()

    # -- before and after ------------------------------------------------------------------
    def remember(self, *, anew: bool = False) -> None:
        """Take what there is now as what belongs here; done at the first call if not before."""
        if self._before is None or anew:
            self._before = self._inventory.all()

    def inventory(self) -> list[str]:
        """Return what there is, in words."""
        return self._inventory.all()

    def leftovers(self, settle_s: float = 1.0) -> list[str]:
        """Return what there is now and was not before the first call, in words.

        :param settle_s: virtual seconds to let udev and the daemons finish.
        """
        self.pass_time(settle_s)
        before = self._before or []
        return [one for one in self._inventory.all() if one not in before]

    def check(self) -> None:
        """Raise if the library did what no host would forgive, or a happening failed."""
        if self._world.clock.errors:
            raise self._world.clock.errors[0]
        if self._world.complaints:
            raise AssertionError("; ".join(self._world.complaints))

    def forgive(self) -> None:
        """Forget complaints that a test has provoked."""
        self._world.complaints.clear()
        self._world.clock.errors.clear()

    def close(self) -> None:
        """End this host: threads that wait in it get a RuntimeError."""
        self._world.close()

    def __enter__(self) -> FakeHost:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
