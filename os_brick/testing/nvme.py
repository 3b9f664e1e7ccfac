# SPDX-License-Identifier: Apache-2.0
"""NVMe over Fabrics in the kernel: controllers, hidden paths and heads, and what becomes of them.

Layout of sysfs and rules as in Linux 6.1: ``drivers/nvme/host/fabrics.c``, ``core.c``,
``multipath.c``.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from os_brick.testing import block, storage
from os_brick.testing.block import BlockDevice, Devices
from os_brick.testing.network import FakeNetwork
from os_brick.testing.nvme_storage import INACCESSIBLE, NamespaceUnit, Subsystem
from os_brick.testing.process import TimeIsUpError
from os_brick.testing.storage import Portal, Unit
from os_brick.testing.world import World

MAJOR = 259
_CTL = "devices/virtual/nvme-fabrics/ctl"
_SUBSYSTEMS = "devices/virtual/nvme-subsystem"
#: Seconds that the kernel asks a silent portal before it gives up (one SYN repeated), and one that
#: answers TCP but nothing else (admin command timeout).
SILENT_S, HANGS_S = 3.0, 60.0
#: From a portal's silence until keep-alive has noticed.
KEEP_ALIVE_S = 5.0


@dataclass(eq=False)
class Head(BlockDevice):
    """The disk of a namespace: over all paths, or one controller's own."""

    paths: list[Path] = field(default_factory=list)
    #: Whether I/O waits for a path as long as there is a controller (native multipath).
    waits: bool = True

    def storage(self) -> tuple[str, Unit | None]:
        for path in self.paths:
            if path.answers():
                return block.ALIVE, path.unit
        if any(path.may_return() for path in self.paths):
            return block.HANGS, None
        return block.FAILS, None


@dataclass(eq=False)
class Path:
    """A namespace on one controller."""

    controller: Controller
    nsid: int
    entry: str
    unit: NamespaceUnit
    head: Head
    size: int
    identity: tuple[str, str]

    def answers(self) -> bool:
        """Whether I/O by it reaches the storage."""
        shown = self.controller.subsystem.shown(self.controller.index).get(self.nsid)
        ana = self.controller.subsystem.ana_state(self.controller.index, self.nsid)
        return self.controller.answers() and shown is self.unit and ana != INACCESSIBLE

    def may_return(self) -> bool:
        """Whether I/O is held for it."""
        shown = self.controller.subsystem.shown(self.controller.index).get(self.nsid)
        return not self.controller.gone and (not self.controller.answers() or shown is self.unit)


@dataclass(eq=False)
class Controller:
    """One fabrics controller as long as it exists."""

    number: int
    subsystem: Subsystem
    index: int
    host_nqn: str
    host_id: str
    transport: str
    state: str = "live"
    paths: list[Path] = field(default_factory=list)
    gone: bool = False

    @property
    def name(self) -> str:
        return f"nvme{self.number}"

    @property
    def portal(self) -> Portal:
        return self.subsystem.portals[self.index]

    @property
    def sysfs(self) -> str:
        return f"{_CTL}/{self.name}"

    def answers(self) -> bool:
        """Whether requests reach the subsystem."""
        up = self.portal.state not in (storage.SILENT, storage.DEAD)
        return self.state == "live" and up and not self.gone


class Refused(OSError):
    """The kernel made no controller."""


class NvmeLayer:
    """All controllers, namespaces and settings of the host's NVMe driver."""

    def __init__(self, world: World, devices: Devices, network: FakeNetwork) -> None:
        self._world = world
        self._devices = devices
        self._network = network
        self.subsystems: list[Subsystem] = []
        self.controllers: list[Controller] = []
        self._numbers = itertools.count()
        self._minors = itertools.count()
        #: Names of subsystems are counted apart from those of controllers.
        self._instances: dict[Subsystem, int] = {}
        self._watched: set[Portal] = set()
        self._hosts: dict[str, str] = {}
        self._creating = False
        #: Whether the paths of a namespace are joined (nvme_core.multipath).
        self.native_multipath = True
        #: Whether controllers tell their host NQN (Linux 4.19 on).
        self.tells_host = True
        #: Appended to addresses (Linux 6.1 on): ``",src_addr=10.0.0.100"``.
        self.address_suffix = ""
        #: What ``reconnect_delay`` says; seconds, or ``"off"``.
        self.reconnect_delay: int | str = 10
        #: Whether host NQN and host id must be a pair (Linux 6.5 on).
        self.strict_pairs = True
        #: Virtual seconds from a scan's begin to its end, and that a connect takes.
        self.scan_s = 0.01
        self.connect_s = 0.02
        #: Whether a controller shows from when the kernel begins to make it, as Linux has it, and
        #: not only when it is made.
        self.shows_early = False

    # -- the driver ------------------------------------------------------------------------
    @property
    def is_loaded(self) -> bool:
        """Whether the driver is loaded."""
        return self._world.dev.exists("nvme-fabrics")

    def load(self) -> None:
        """Load the driver, as ``modprobe`` does."""
        if not self.is_loaded:
            value = "Y" if self.native_multipath else "N"
            self._world.sys.write("module/nvme_core/parameters/multipath", value)
            os.makedirs(self._world.sys.path(_CTL), exist_ok=True)
            self._world.sys.link("class/nvme-fabrics/ctl", _CTL)
            self._world.dev.write("nvme-fabrics", "")

    # -- controllers -----------------------------------------------------------------------
    def find(self, name: str) -> Controller | None:
        """Return the controller with a name (``nvme0`` or ``/dev/nvme0``)."""
        wanted = name.removeprefix("/dev/")
        return next((one for one in self.controllers if one.name == wanted), None)

    def subsystem(self, nqn: str, portal: Portal | None) -> tuple[Subsystem, int] | None:
        """Return the subsystem behind a portal, and the portal's index."""
        for one in self.subsystems:
            if one.nqn == nqn and portal is not None and portal in one.portals:
                return one, one.portals.index(portal)
        return None

    def create(
        self,
        nqn: str,
        address: str,
        port: int,
        transport: str,
        host_nqn: str,
        host_id: str,
        take: Callable[[float], None],
        wait: Callable[[Callable[[], bool]], None],
    ) -> Controller:
        """Make a controller, one at a time on the host.

        :param take: spends time without the host's lock.
        :param wait: waits for the host's state without the lock.
        :raises Refused: with the kernel's errno.
        """
        wait(lambda: not self._creating)
        self._creating = True
        try:
            made = self._create(nqn, address, port, transport, host_nqn, host_id, take)
        except TimeIsUpError:
            raise  # Who has asked for it is stopped, but the kernel goes on.
        except BaseException:
            self._creating = False
            raise
        self._creating = False
        return made

    def _create(
        self,
        nqn: str,
        address: str,
        port: int,
        transport: str,
        host_nqn: str,
        host_id: str,
        take: Callable[[float], None],
    ) -> Controller:
        self._check_pair(host_nqn, host_id)
        portal = self._network.find_portal(address, port)
        state = portal.state if portal is not None else storage.SILENT
        if any(
            (one.subsystem.nqn, one.portal, one.transport) == (nqn, portal, transport)
            and one.host_nqn == host_nqn
            and not one.state.startswith("de")
            for one in self.controllers
        ):
            raise Refused(errno.EALREADY, os.strerror(errno.EALREADY))
        if state == storage.REFUSES:
            raise Refused(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if state in (storage.SILENT, storage.DEAD):
            self._take(SILENT_S, take, self._given_up)
            raise Refused(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        if state == storage.HANGS:
            self._take(HANGS_S, take, self._given_up)
            raise Refused(errno.EIO, os.strerror(errno.EIO))

        def complete() -> Controller:
            if early is not None:
                self.set_state(early, "live")
                return early
            return self._made(nqn, portal, transport, host_nqn, host_id, "live")

        def made() -> None:
            self._given_up()
            with contextlib.suppress(Refused):
                complete()

        early = None
        if self.shows_early:
            early = self._made(nqn, portal, transport, host_nqn, host_id, "connecting")
        self._take(self.connect_s, take, made)
        return complete()

    def _given_up(self) -> None:
        self._creating = False

    def _take(
        self, seconds: float, take: Callable[[float], None], after_all: Callable[[], None]
    ) -> None:
        """Spend time; if who has asked is stopped meanwhile, go on without him."""
        began = self._world.clock.now()
        try:
            take(seconds)
        except TimeIsUpError:
            self._world.after(seconds - (self._world.clock.now() - began), after_all)
            raise

    def _made(
        self,
        nqn: str,
        portal: Portal | None,
        transport: str,
        host_nqn: str,
        host_id: str,
        state: str,
    ) -> Controller:
        found = self.subsystem(nqn, portal)
        if found is None:
            raise Refused(errno.EINVAL, os.strerror(errno.EINVAL))
        subsystem, index = found
        if subsystem.allowed_hosts is not None and host_nqn not in subsystem.allowed_hosts:
            raise Refused(errno.EIO, os.strerror(errno.EIO))
        return self.add(subsystem, index, host_nqn, host_id, transport, state)

    def _check_pair(self, host_nqn: str, host_id: str) -> None:
        known = self._hosts.setdefault(host_nqn, host_id)
        others = {nqn for nqn, one in self._hosts.items() if one == host_id}
        if self.strict_pairs and (known != host_id or others != {host_nqn}):
            if known == host_id:
                del self._hosts[host_nqn]
            raise Refused(errno.EINVAL, os.strerror(errno.EINVAL))

    def add(
        self,
        subsystem: Subsystem,
        index: int,
        host_nqn: str,
        host_id: str = "host-id",
        transport: str | None = None,
        state: str = "live",
    ) -> Controller:
        """Have a controller appear; a live one is scanned."""
        self.load()
        made = Controller(
            next(self._numbers),
            subsystem,
            index,
            host_nqn,
            host_id,
            transport or subsystem.transport,
        )
        made.state = state
        files: dict[str, object] = {
            "subsysnqn": subsystem.nqn,
            "transport": made.transport,
            "address": self._address(made),
            "state": state,
            "reconnect_delay": self.reconnect_delay,
            "ctrl_loss_tmo": "off",
            "dev": f"240:{made.number}",
            "delete_controller": "",
            "rescan_controller": "",
        }
        if self.tells_host:
            files |= {"hostnqn": host_nqn, "hostid": host_id}
        self._world.sys.directory(made.sysfs, files)
        self._world.dev.write(made.name, "")
        self.controllers.append(made)
        self._instances.setdefault(subsystem, len(self._instances) + 2)
        if made.portal not in self._watched:
            self._watched.add(made.portal)
            made.portal.listeners.append(self._portal_changed)
        if self._subsystem_changed not in subsystem.listeners:
            subsystem.listeners.append(self._subsystem_changed)
        if state == "live":
            self.scan(made)
        self._world.notify()
        return made

    def _address(self, one: Controller) -> str:
        if one.transport == "loop":
            return ""
        if one.transport == "fc":
            return f"traddr={one.portal.address}{self.address_suffix}"
        return f"traddr={one.portal.address},trsvcid={one.portal.port}{self.address_suffix}"

    def set_state(self, one: Controller, state: str) -> None:
        """Set a controller's state; one that becomes live is scanned."""
        if one.gone:
            return
        one.state = state
        self._world.sys.write(f"{one.sysfs}/state", state)
        if state == "live":
            self.scan(one)
        self._world.notify()

    def delete(self, one: Controller) -> None:
        """Have a controller, its paths and the disks that lose their last path disappear."""
        if one.gone:
            return
        one.gone = True
        for path in list(one.paths):
            self._drop_path(path, "its controller was disconnected")
        self._world.sys.remove(one.sysfs)
        self._world.dev.remove(one.name)
        self.controllers.remove(one)
        self._world.notify()

    def write_attribute(self, name: str, text: str, limit_s: float) -> None:
        """Write to ``nvme0/delete_controller`` or ``rescan_controller``.

        :raises FileNotFoundError: there is no such file.
        """
        controller, _, attribute = name.partition("/")
        with self._world.lock:
            found = self.find(controller)
            if found is None or attribute not in ("delete_controller", "rescan_controller"):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            if attribute == "delete_controller":
                self.delete(found)
            else:
                self.scan(found)

    # -- namespaces ------------------------------------------------------------------------
    def scan(self, one: Controller) -> None:
        """Begin to look for namespaces; what has changed shows after a while."""

        def done() -> None:
            if one.answers():
                self._update(one)

        self._world.after(self.scan_s, done)

    def _update(self, one: Controller) -> None:
        shown = one.subsystem.shown(one.index)
        for path in list(one.paths):
            unit = shown.get(path.nsid)
            if unit is None or (unit.uuid, unit.nguid) != path.identity:
                # A namespace with another identity is added by the next scan only.
                self._drop_path(path, "its namespace is gone")
                shown.pop(path.nsid, None)
            elif unit.size != path.head.size:
                self._devices.resize(path.head, unit.size)
        known = {path.nsid for path in one.paths}
        for nsid, unit in shown.items():
            if nsid not in known:
                self._add_path(one, nsid, unit)
        for path in one.paths:
            ana = one.subsystem.ana_state(one.index, path.nsid)
            if ana and self.native_multipath:
                self._world.sys.write(f"{one.sysfs}/{path.entry}/ana_state", ana)

    def _add_path(self, one: Controller, nsid: int, unit: NamespaceUnit) -> None:
        instance = self._instances[one.subsystem] if self.native_multipath else one.number
        head = self._head_of(one, unit) if self.native_multipath else None
        number = int(head.name.rpartition("n")[2]) if head else self._free(instance)
        name = f"nvme{instance}n{number}"
        entry = f"nvme{instance}c{one.number}n{number}" if self.native_multipath else name
        files = self._files(one, nsid, unit)
        if head is None:
            base = f"{_SUBSYSTEMS}/nvme-subsys{instance}" if self.native_multipath else one.sysfs
            minor = next(self._minors)
            head = Head(name, (MAJOR, minor), f"{base}/{name}", unit.size)
            head.waits = self.native_multipath
            self._devices.add(head, dict(files))
            self._tell_udev("add", head)
        if self.native_multipath:
            self._world.sys.directory(f"{one.sysfs}/{entry}", {**files, "size": unit.size // 512})
        path = Path(one, nsid, entry, unit, head, unit.size, (unit.uuid, unit.nguid))
        one.paths.append(path)
        head.paths.append(path)
        self._world.notify()

    def _head_of(self, one: Controller, unit: NamespaceUnit) -> Head | None:
        for other in self.controllers:
            for path in other.paths:
                if other.subsystem is one.subsystem and path.unit is unit:
                    return path.head
        return None

    def _free(self, instance: int) -> int:
        names = set(self._devices.names())
        return next(n for n in itertools.count(1) if f"nvme{instance}n{n}" not in names)

    def _files(self, one: Controller, nsid: int, unit: NamespaceUnit) -> dict[str, object]:
        files: dict[str, object] = {
            "nsid": nsid,
            # "For backward compatibility expose the NGUID to userspace if we have no UUID set"
            "uuid": unit.uuid or unit.nguid or "00000000-0000-0000-0000-000000000000",
            "wwid": self._wwid(nsid, unit),
            "queue/logical_block_size": unit.block_size,
        }
        if unit.nguid:
            files["nguid"] = unit.nguid
        ana = one.subsystem.ana_state(one.index, nsid)
        if ana:
            files["ana_state"] = ana
        return files

    @staticmethod
    def _wwid(nsid: int, unit: NamespaceUnit) -> str:
        if unit.uuid:
            return f"uuid.{unit.uuid}"
        if unit.nguid:
            return f"eui.{unit.nguid.replace('-', '')}"
        return f"nvme.1d0f-{unit.serial}-4c696e7578-{nsid:08x}"

    def _drop_path(self, path: Path, why: str) -> None:
        one, head = path.controller, path.head
        if path in one.paths:
            one.paths.remove(path)
        head.paths.remove(path)
        if self.native_multipath:
            self._world.sys.remove(f"{one.sysfs}/{path.entry}")
        if not head.paths:
            self._devices.drop(head, why)
            self._tell_udev("remove", head)

    def _tell_udev(self, what: str, head: Head) -> None:
        entry = f"udev/data/b{head.dev}"

        def handle() -> None:
            if what == "add" and not head.gone:
                self._world.run.write(entry, "E:ID_MODEL=Linux\n")
            elif what == "remove":
                self._world.run.remove(entry)

        self._world.after(self._world.delays.udev_s, handle)

    # -- life and death --------------------------------------------------------------------
    def _subsystem_changed(self, subsystem: Subsystem) -> None:
        for one in self.controllers:
            if one.subsystem is subsystem and (subsystem.sends_events or subsystem.ana is not None):
                self.scan(one)

    def _portal_changed(self, portal: Portal) -> None:
        for one in [one for one in self.controllers if one.portal is portal]:
            if portal.state == storage.DEAD:
                self.set_state(one, "connecting")
            elif portal.state == storage.SILENT:
                self._world.after(KEEP_ALIVE_S, partial(self._noticed, one))
            elif portal.state == storage.UP and one.state == "connecting":
                delay = self.reconnect_delay if isinstance(self.reconnect_delay, int) else 10
                self._world.after(float(delay), partial(self._back, one))

    def _noticed(self, one: Controller) -> None:
        if one.portal.state == storage.SILENT and one.state == "live":
            self.set_state(one, "connecting")

    def _back(self, one: Controller) -> None:
        if one.portal.state == storage.UP and one.state == "connecting":
            self.set_state(one, "live")

    # -- words -----------------------------------------------------------------------------
    def inventory(self) -> list[str]:
        """Return a line for each controller."""
        return [
            f"NVMe controller {one.name} to {one.subsystem.nqn} through {one.portal.text}"
            for one in self.controllers
        ]
