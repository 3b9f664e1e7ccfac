# SPDX-License-Identifier: Apache-2.0
"""From paths to a usable device: finding the disk of a LUN, checking who it is, having its map.

The same for iSCSI and Fibre Channel; they only differ in where a LUN is looked for and scanned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from threading import Event

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import changes, multipath, scsi, scsi_removal, udev
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.identity import Identity
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk

LOG = logging.getLogger(__name__)

# A scan has done its work when its write returns; the disk driver may need a moment more.
_LAST_LOOK_S = 2.0
# The driver asks the device many things before the disk is there; on a bad path it tries for long.
_DRIVER_S = 30.0
# multipathd usually makes a map by itself; with find_multipaths strict, smart or yes it has to be
# asked. How long it is given depends on what udev says of the disks.
_GRACE_S = 2.0
_GRACE_WHEN_LEFT_ALONE_S = 1.0
_MAP_WAIT_S = 10.0
_UDEV_WAIT_S = 30.0
# Once the map can be used, log-ins that are under way get so long to add their paths to it.
_LATE_PATHS_S = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """A disk, and whether it was there before the attach (then it is not the attach's to
    remove)."""

    disk: Disk
    was_there: bool


# -- one path --------------------------------------------------------------------------------
def find_or_scan(
    host: Host,
    call: Call,
    *,
    look: Callable[[], Disk | None],
    coming: Callable[[], bool],
    scan: Callable[[], None],
    scan_at_once: bool,
    attempts: int,
    enough: Callable[[], bool] = lambda: False,
) -> Found | None:
    """Return the disk of a LUN; scan for it while it does not appear.

    A disk that is there already is asked who it is before it is taken: what the kernel keeps of it
    may be of another volume that had the LUN before. Such a one is removed and scanned anew.

    :param look: finds the disk in sysfs.
    :param coming: tells whether the kernel has the device, so that its disk will follow.
    :param scan: has the kernel look for exactly this LUN.
    :param scan_at_once: False where the kernel scans by itself at log-in.
    :param attempts: ``device_scan_attempts``: after 4 s without the disk it is scanned for again,
        and then so many times more, after 9, 16, 25 … seconds.
    :param enough: tells that no more paths are needed. What a scan has begun is waited for all the
        same: nobody else would know of it.
    :returns: None if it did not appear.
    """
    disk = look()
    if disk is None and coming():
        # What an earlier scan has found, of a killed attach for one, may be another volume as well.
        call.wait_until(
            lambda: look() or not coming() or enough(), what="disk of the LUN", limit_s=_DRIVER_S
        )
        disk = look()
    removed = False
    while disk is not None:  # there may be one for each coding of the LUN's number
        if _is_current(host, call, disk):
            return Found(disk, was_there=True)
        removed = True
        disk = look()
    if enough():
        return None
    if scan_at_once or removed:
        _scan(scan)

    def over() -> bool:
        return enough() and not coming()

    for number in range(1, attempts + 2):
        found = _wait_for_disk(call, look, over, float((number + 1) ** 2))
        if found is not None or over():
            return found
        if not coming():
            _scan(scan)
    limit_s = _DRIVER_S if coming() else _LAST_LOOK_S
    return _wait_for_disk(call, look, lambda: False, limit_s)


def _wait_for_disk(
    call: Call, look: Callable[[], Disk | None], over: Callable[[], bool], limit_s: float
) -> Found | None:
    call.wait_until(lambda: look() or over(), what="disk of the LUN", limit_s=limit_s)
    disk = look()
    return None if disk is None else Found(disk, was_there=False)


def _scan(scan: Callable[[], None]) -> None:
    try:
        scan()
    except changes.FAILURES as exc:  # the next scan may work; the disk may come without one
        LOG.warning("Scanning for the LUN failed: %s", exc)


def _is_current(host: Host, call: Call, disk: Disk) -> bool:
    """Tell whether a disk found at the LUN's address still is the LUN; remove it if it is not.

    :raises OSError: this cannot be said; the disk may be in use and is left as it is.
    """
    kept = scsi.read_identity(host.sysfs, disk)
    says = host.changes.inquire(call, disk)
    same = None if says is None else kept.same_as(says)
    over = multipath.find_map_over(host.sysfs, disk)
    if over is not None and says is not None and says.is_wwid(over.wwid) is False:
        same = False  # it was scanned anew, but is in the map of the other volume still
    if says is None and (users := scsi_removal.find_users_of(host, call, disk)):
        # An array may not show a LUN for a moment. Nothing can be written to another volume.
        raise OSError(f"{disk} has no LUN now but is in use, it is left: {'; '.join(users)}")
    if says is None or same is False:
        scsi_removal.remove_stale(host, call, disk)
        return False
    if same is None and (kept.ids or says.ids):
        raise OSError(
            f"{disk} was {kept} and says now that it is {says}: whether that is the same volume "
            "cannot be told. Detach it before it is attached again."
        )
    host.changes.rescan(call, disk)  # the volume may have another size than it had
    return True


# -- who it is -------------------------------------------------------------------------------
def check_same_volume(host: Host, disks: Iterable[Disk], maps: Iterable[Map] = ()) -> Identity:
    """Return the identity that all disks (and the map's other paths, and the map) agree on.

    :raises WrongVolume: they are different volumes; says which is which.
    """
    known: tuple[Disk, Identity] | None = None
    everyone = dict.fromkeys(disks)
    for one in maps:
        everyone.update(dict.fromkeys(multipath.read_members(host.sysfs, one)))
    for disk in everyone:
        identity = scsi.read_identity(host.sysfs, disk)
        if not identity.ids:
            continue
        if known is None:
            known = disk, identity
        elif known[1].same_as(identity) is False:
            raise exception.WrongVolume(
                device=f"{known[0]} and {disk}",
                reason=f"These paths lead to different volumes, {known[1]} and {identity}: check "
                "the LUNs and portals of the volume and the cabling.",
            )
    if known is None:
        return Identity()
    for one in maps:
        if known[1].is_wwid(one.wwid) is False:
            raise exception.WrongVolume(
                device=str(one),
                reason=f"The map says it is {one.wwid}, but its path {known[0]} says {known[1]}.",
            )
    return known[1]


def preferred_wwid(host: Host, identity: Identity) -> str:
    """Return the identity under which udev and multipath know the device: the one it has a
    link by."""
    for one in identity.ids[1:]:
        if host.dev.exists(f"disk/by-id/scsi-{one}") and not host.dev.exists(
            f"disk/by-id/scsi-{identity.wwid}"
        ):
            return one
    return identity.wwid


# -- the map ---------------------------------------------------------------------------------
class _Next(Enum):
    """What to do when there is no usable map yet."""

    NOTHING_FOUND = auto()
    ASK_DAEMON = auto()
    DO_WITHOUT = auto()


@dataclass
class MapWait:
    """Waiting for the map of a volume whose paths appear one by one.

    :ivar disks: returns the disks that have appeared so far.
    :ivar busy: tells whether more paths are on their way (portals that do not answer are not).
    :ivar pending: tells whether any path may come at all, those that do not answer now included.
    :ivar daemon: tells whether multipathd answers; None while that is not known.
    :ivar news: set when one of these answers may have changed.
    """

    host: Host
    call: Call
    disks: Callable[[], list[Disk]]
    busy: Callable[[], bool]
    pending: Callable[[], bool]
    daemon: Callable[[], bool | None]
    news: Event
    _known: int = 0
    _since_s: float = 0.0
    _udev_s: float = 0.0
    _asked: bool = False
    _refused: bool = False

    def present(self) -> list[Disk]:
        """Return the disks that have appeared and are there still: the name of one that has gone
        may be another volume's."""
        return [disk for disk in self.disks() if scsi.is_there(self.host.sysfs, disk)]

    def wait(self) -> Map | None:
        """Return the map when it is set up and no path is under way; None if there is no disk or no
        map."""
        with self.call.step("wait for the map") as step:
            while True:
                answer = self.call.wait_until(self._look, what="multipath map", event=self.news)
                if answer is _Next.ASK_DAEMON:
                    self._ask()
                elif isinstance(answer, Map):
                    step.outcome = str(answer)
                    self.call.wait_until(
                        lambda: not self.busy(),
                        what="paths under way",
                        limit_s=_LATE_PATHS_S,
                        event=self.news,
                    )
                    return answer
                else:
                    step.outcome = "none"
                    return None

    def _look(self) -> Map | _Next | None:
        disks = self.present()
        if not disks:
            return None if self.pending() else _Next.NOTHING_FOUND
        for one in multipath.find_maps(self.host.sysfs, disks):
            if multipath.is_ready(self.host.sysfs, one):
                return one
        now = self.call.elapsed_s()
        if len(disks) != self._known:  # each path may be the one that multipathd waits for
            self._known, self._since_s, self._udev_s = len(disks), now, 0.0
        waited_s = now - self._since_s
        without = self._refused or self.daemon() is False
        if self._asked or without:
            over = without or waited_s >= _MAP_WAIT_S
            return _Next.DO_WITHOUT if over and not self.busy() else None
        return _Next.ASK_DAEMON if self._had_its_time(disks, waited_s) else None

    def _had_its_time(self, disks: list[Disk], waited_s: float) -> bool:
        """Tell whether multipathd had the time to make the map by itself.

        On a busy host it may need as long for a disk as udev did, which comes first.
        """
        if self.busy():
            return waited_s >= _LATE_PATHS_S
        if any(udev.is_late(self.host, disk.name) for disk in disks):
            self._udev_s = waited_s
            return waited_s >= _UDEV_WAIT_S
        verdicts = [udev.says_multipath(self.host, disk.name) for disk in disks]
        if True in verdicts:
            grace_s = _MAP_WAIT_S
        else:
            grace_s = _GRACE_WHEN_LEFT_ALONE_S if False in verdicts else _GRACE_S
        return waited_s - self._udev_s >= max(grace_s, 2 * self._udev_s)

    def _ask(self) -> None:
        """Have multipathd make a map though ``find_multipaths`` would not."""
        disks = self.present()
        if not disks:
            return  # gone since they were looked at
        self._asked = True
        identity = check_same_volume(self.host, disks)
        wwid = preferred_wwid(self.host, identity)
        if wwid:
            multipath.remember_wwid(self.host, self.call, wwid)
        answers = [multipath.add_path(self.host, self.call, disk) for disk in disks]
        self._refused = all(
            answer.code is not None and "blacklisted" in answer.out for answer in answers
        )
        self._since_s = self.call.elapsed_s()


def check_ready_for_io(host: Host, call: Call, one: Map, attempts: int, interval_s: float) -> None:
    """Return when multipath's path checkers find a map usable (bug 2067949).

    :param attempts: how often to ask at most; ``interval_s`` x 2, 4, 8 … seconds between.
    :raises ProcessExecutionError: the last answer if none was good.
    """
    for attempt in range(1, attempts + 1):
        result = multipath.has_usable_path(host, call, one)
        if result.code == 0:
            return
        if result.code is None or attempt == attempts:
            break  # one that hangs would hang again
        call.pause(interval_s * 2**attempt)
    LOG.error("Map %s is not usable: %s", one, result.summary)
    result.check()
