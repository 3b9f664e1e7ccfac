# SPDX-License-Identifier: Apache-2.0
"""multipathd: which paths it knows, which maps it makes of them, and when."""

from __future__ import annotations

from collections.abc import Callable

from os_brick.testing.block import BlockDevice
from os_brick.testing.device_mapper import DeviceMapper, MultipathMap
from os_brick.testing.scsi import Disk
from os_brick.testing.world import World

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Multipathd:
    """The daemon and its configuration. All settings may be changed at any time."""

    def __init__(self, world: World, mapper: DeviceMapper) -> None:
        self._world = world
        self._mapper = mapper
        self.running = True
        #: ``no`` (every disk gets a map), ``strict`` (only known wwids do) or ``yes`` (known, or
        #: two paths).
        self.find_multipaths = "no"
        self.user_friendly_names = False
        #: ``fail`` or ``queue``: what becomes of I/O while no path is left.
        self.no_path_retry = "fail"
        #: Never make a map, as for blacklisted devices.
        self.blacklist = False
        #: The file of known wwids.
        self.wwids: set[str] = set()
        #: Names by wwid, kept as in the bindings file.
        self.bindings: dict[str, str] = {}
        #: The paths it watches.
        self.paths: list[Disk] = []
        #: Queueing was switched off by command for these maps, so that it stays off.
        self.disabled_queueing: set[str] = set()
        #: Called with each disk that joins a map.
        self.when_joined: list[Callable[[Disk], None]] = []

    # -- what it hears ---------------------------------------------------------------------
    def hear(self, what: str, device: BlockDevice) -> None:
        """Take udev's news."""
        if not isinstance(device, Disk) or not self.running:
            return
        if what == "add":
            self.consider(device)
        elif what == "remove":
            self._world.after(self._world.delays.multipath_drop_s, lambda: self.forget(device))

    def consider(self, disk: Disk, *, by_command: bool = False) -> bool:
        """Watch a path, and put it into a map if that is wanted; tell whether it will be."""
        if self.blacklist or disk.gone:
            return False
        if disk not in self.paths:
            self.paths.append(disk)
        if not self.is_wanted(disk):
            return False
        delay = 0.0 if by_command else self._world.delays.multipath_build_s
        self._world.after(delay, lambda: self._build(disk.wwid))
        return True

    def is_wanted(self, disk: Disk) -> bool:
        """Tell whether a disk is to be in a map (``multipath -u``)."""
        if not disk.wwid:
            return False
        if (
            self.map_of(disk.wwid) is not None
            or self.find_multipaths == "no"
            or disk.wwid in self.wwids
        ):
            return True
        alike = [one for one in self.paths if one.wwid == disk.wwid]
        return self.find_multipaths == "yes" and len(alike) > 1

    def forget(self, disk: Disk) -> bool:
        """Stop watching a path and take it out of its map; False if that cannot be done."""
        if not self.running or disk not in self.paths:
            return True
        over = self.map_over(disk)
        if over is not None and over.slaves == [disk] and not disk.gone and over.openers:
            return False
        self.paths.remove(disk)
        if over is not None:
            self._mapper.release(over, disk)
            if not over.slaves:
                self._mapper.remove(over, "multipathd removed its map with the last path")
        self._world.notify()
        return True

    # -- maps ------------------------------------------------------------------------------
    def maps(self) -> list[MultipathMap]:
        """Return all multipath maps."""
        return [one for one in self._mapper.all() if isinstance(one, MultipathMap)]

    def map_of(self, wwid: str) -> MultipathMap | None:
        """Return the map of a wwid."""
        return next((one for one in self.maps() if one.wwid == wwid), None)

    def map_over(self, disk: Disk) -> MultipathMap | None:
        """Return the map a path is in."""
        return next((one for one in self.maps() if disk in one.slaves), None)

    def _name(self, wwid: str) -> str:
        if not self.user_friendly_names:
            return wwid
        if wwid not in self.bindings:
            number = len(self.bindings)
            prefix = _LETTERS[number // 26 - 1] if number >= 26 else ""
            self.bindings[wwid] = f"mpath{prefix}{_LETTERS[number % 26]}"
        return self.bindings[wwid]

    def _build(self, wwid: str) -> None:
        """Make the map of a wwid, or add to it what is missing."""
        if not self.running or self.blacklist:
            return
        over = self.map_of(wwid)
        size = over.size if over is not None else None
        joining: list[Disk] = []
        for disk in self.paths:
            if (
                disk.wwid == wwid
                and not disk.gone
                and self.map_over(disk) is None
                and not disk.claimed
            ):
                size = disk.size if size is None else size
                if disk.size == size:
                    joining.append(disk)
        if not joining:
            return
        self.wwids.add(wwid)
        if over is None:
            queueing = self.no_path_retry == "queue"
            self.disabled_queueing.discard(wwid)
            self._mapper.create(
                MultipathMap,
                self._name(wwid),
                f"mpath-{wwid}",
                list(joining),
                wwid=wwid,
                queueing=queueing,
            )
        else:
            for disk in joining:
                self._mapper.hold(over, disk)
            self.set_queueing(
                over, self.no_path_retry == "queue" and wwid not in self.disabled_queueing
            )
        for disk in joining:
            for listener in self.when_joined:
                listener(disk)
        self._world.notify()

    def set_queueing(self, over: MultipathMap, queueing: bool) -> None:
        """Hold I/O of a map, or not, while it has no path."""
        over.queueing = queueing
        self._world.notify()

    # -- for tests -------------------------------------------------------------------------
    def stop(self) -> None:
        """Stop the daemon; maps stay."""
        with self._world.lock:
            self.running = False
            self.paths.clear()

    def start(self, disks: list[Disk]) -> None:
        """Start it; it looks at the disks there are."""
        with self._world.lock:
            self.running = True
            for disk in disks:
                self.consider(disk)
