# SPDX-License-Identifier: Apache-2.0
"""iSCSI as the kernel shows it: portals and targets as values, sessions and their devices from
sysfs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from os_brick import exception
from os_brick.initiator.linux import scsi
from os_brick.initiator.linux.scsi import Disk, Hctl
from os_brick.initiator.linux.sysfs import Tree

_DEFAULT_PORT = 3260  # RFC 7143 13.8
_HOST_OF_SESSION = re.compile(r"/host(\d+)/session\d+(?:/|$)")
# RFC 7143 4.2.7: what may stand in a target name; and nothing that a path or an option could be
# made of.
_TARGET_NAME = re.compile(r"(?:iqn|eui|naa)\.[^\s/\\,;'\"`$]{1,219}")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})")

LOGGED_IN = "LOGGED_IN"


@dataclass(frozen=True, slots=True, order=True)
class Portal:
    """Where a target is reached. Compared by value: ``[2001:DB8::1]:3260,1`` equals
    ``[2001:db8::1]:3260``."""

    host: str
    """Address in canonical form, or a host name in lower case."""
    port: int

    @classmethod
    def parse(cls, text: object, key: str = "target_portal") -> Portal:
        """Return the portal in ``ip:port``, ``[ipv6]:port`` or ``name:port``, with or without
        ``,tpgt``.

        :raises InvalidParameterValue: naming ``key`` and what was expected.
        """
        portal = cls._parse(text) if isinstance(text, str) else None
        if portal is None:
            raise exception.InvalidParameterValue(
                err=f"{key}: expected a portal as 'ip:port', '[ipv6]:port' or 'name:port', "
                f"got {text!r}"
            )
        return portal

    @classmethod
    def _parse(cls, text: str) -> Portal | None:
        where = text.strip().partition(",")[0]
        if where.startswith("["):
            host, bracket, rest = where[1:].partition("]")
            port = rest[1:] if rest.startswith(":") else rest or str(_DEFAULT_PORT)
            if not bracket:
                return None
        else:
            host, _, port = where.rpartition(":")
            if not host:
                host, port = where, str(_DEFAULT_PORT)
        if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            return None
        address = canonical_address(host)
        return None if address is None else cls(address, int(port))

    @property
    def is_name(self) -> bool:
        """Tell whether the host is a name that has to be resolved."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False

    @property
    def bare(self) -> str:
        """The portal without brackets, as in udev's by-path names."""
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else self.bare


def canonical_address(host: str) -> str | None:
    """Return an address in its canonical spelling, a host name in lower case; None if it is
    neither."""
    try:
        return str(ipaddress.ip_address(host)).lower()
    except ValueError:
        return host.lower() if _HOST_NAME.fullmatch(host) else None


def target_name(value: object, key: str = "target_iqn") -> str:
    """Return a target name that may be used in a command.

    :raises InvalidParameterValue: naming ``key`` and what was expected.
    """
    if isinstance(value, str) and _TARGET_NAME.fullmatch(value.strip()):
        return value.strip()
    raise exception.InvalidParameterValue(
        err=f"{key}: expected a target name as 'iqn.…', 'eui.…' or 'naa.…', got {value!r}"
    )


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A target as seen through one portal: what a session is made with."""

    portal: Portal
    iqn: str

    @property
    def lock_name(self) -> str:
        """Name of the lock that users of a session hold together and its log-out alone."""
        return f"iscsi session {self.portal} {self.iqn.lower()}"

    @property
    def login_lock_name(self) -> str:
        """Name of the lock of one log-in or log-out at a time."""
        return f"iscsi login {self.portal} {self.iqn.lower()}"

    def __str__(self) -> str:
        return f"{self.iqn} on {self.portal}"


@dataclass(frozen=True, slots=True, order=True)
class IscsiPath:
    """One way to a volume: a target through a portal, and the LUN's number there (as the kernel
    codes it)."""

    target: Target
    lun: int

    @property
    def volume_lock_name(self) -> str:
        """Name of the lock of the volume that is reached here, whatever the portal and the
        coding."""
        return f"iscsi volume {self.target.iqn.lower()} {scsi.plain_lun(self.lun)}"

    @property
    def lock_name(self) -> str:
        """Name of the lock of the one thread that may bring up this path, or take away what it
        made."""
        portal, iqn = self.target.portal, self.target.iqn.lower()
        return f"iscsi path {portal} {iqn} {scsi.plain_lun(self.lun)}"

    @property
    def late_lock_name(self) -> str:
        """Name of the lock that is shared by all threads that bring up a path of the volume."""
        return f"{self.volume_lock_name} late"

    def __str__(self) -> str:
        return f"LUN {self.lun} of {self.target}"


@dataclass(frozen=True, slots=True)
class Session:
    """A logged-in (or recovering) session."""

    sid: int
    iqn: str
    portals: frozenset[Portal]
    """The portal as configured and, after a redirection, as connected."""
    host: int
    state: str

    def serves(self, target: Target, also: Iterable[Portal] = ()) -> bool:
        """Tell whether this is a session to the target through its portal (or one of ``also``)."""
        return self.iqn.lower() == target.iqn.lower() and not self.portals.isdisjoint(
            (target.portal, *also)
        )


# -- sessions --------------------------------------------------------------------------------
def read_sessions(sysfs: Tree, wanted: Callable[[str], bool] = lambda iqn: True) -> list[Session]:
    """Return the sessions whose target name is ``wanted``, of every transport, oldest first.

    :raises OSError: the host could not be looked at.
    """
    sessions = []
    for name in sysfs.names("class/iscsi_session"):
        iqn = sysfs.text("class/iscsi_session", name, "targetname")
        # A session that is just being made has no name yet.
        if iqn and name.startswith("session") and wanted(iqn):
            session = _read_session(sysfs, name, iqn)
            if session is not None:
                sessions.append(session)
    return sorted(sessions, key=lambda session: session.sid)


def read_session(sysfs: Tree, sid: int) -> Session | None:
    """Return the session of a number; None if there is none, or none with a name yet."""
    iqn = sysfs.text("class/iscsi_session", f"session{sid}", "targetname")
    return _read_session(sysfs, f"session{sid}", iqn) if iqn else None


def _read_session(sysfs: Tree, name: str, iqn: str) -> Session | None:
    found = _HOST_OF_SESSION.search(sysfs.link_target("class/iscsi_session", name) or "")
    if found is None:
        return None
    sid = int(name.removeprefix("session"))
    connection = ("class/iscsi_connection", f"connection{sid}:0")
    portals = set()
    for kind in ("persistent_", ""):
        host = canonical_address(sysfs.text(*connection, f"{kind}address"))
        port = sysfs.number(*connection, f"{kind}port")
        if host and port:
            portals.add(Portal(host, port))
    state = sysfs.text("class/iscsi_session", name, "state")
    return Session(sid, iqn, frozenset(portals), int(found[1]), state)


def find_sessions(sysfs: Tree, target: Target) -> list[Session]:
    """Return all sessions to a target through its portal, oldest first."""
    wanted = target.iqn.lower()
    sessions = read_sessions(sysfs, lambda iqn: iqn.lower() == wanted)
    return [session for session in sessions if session.serves(target)]


def is_there(sysfs: Tree, session: Session) -> bool:
    """Tell whether a session still exists (the kernel does not use a number twice)."""
    return sysfs.exists("class/iscsi_session", f"session{session.sid}")


def state(sysfs: Tree, session: Session) -> str:
    """Return the session's state now: ``LOGGED_IN``, ``FAILED`` (recovering), ``FREE``, or "" if
    gone."""
    return sysfs.text("class/iscsi_session", f"session{session.sid}", "state")


def targets_of(sysfs: Tree, session: Session) -> list[tuple[int, int]]:
    """Return the (channel, target) pairs that a session has; none before its first LUN was seen."""
    found = []
    for name in sysfs.names("class/iscsi_session", f"session{session.sid}", "device"):
        words = name.removeprefix("target").split(":")
        if (
            name.startswith("target")
            and len(words) == 3
            and all(word.isdecimal() for word in words)
        ):
            found.append((int(words[1]), int(words[2])))
    return found


def find_disk(sysfs: Tree, session: Session, lun: int) -> Disk | None:
    """Return the disk of a LUN on a session, under whichever coding of the number the kernel has
    it."""
    return next(iter(find_disks(sysfs, session, lun)), None)


def find_disks(sysfs: Tree, session: Session, lun: int) -> list[Disk]:
    """Return the disks of a LUN on a session: one for each coding of the number that was scanned
    for."""
    disks = (
        scsi.read_disk(sysfs, Hctl(session.host, channel, target, number))
        for channel, target in targets_of(sysfs, session)
        for number in scsi.lun_variants(lun)
    )
    return [disk for disk in disks if disk is not None]


def find_bare(sysfs: Tree, session: Session, lun: int) -> Disk | None:
    """Return the device of a LUN on a session before (or without) a disk driver has taken it."""
    for channel, target in targets_of(sysfs, session):
        for number in scsi.lun_variants(lun):
            device = scsi.read_bare(sysfs, Hctl(session.host, channel, target, number))
            if device is not None:
                return device
    return None


def read_devices(sysfs: Tree, session: Session) -> list[Hctl]:
    """Return the addresses of all SCSI devices of a session."""
    devices = []
    for channel, target in targets_of(sysfs, session):
        folder = f"target{session.host}:{channel}:{target}"
        for name in sysfs.names("class/iscsi_session", f"session{session.sid}", "device", folder):
            hctl = Hctl.parse(name)
            if hctl is not None:
                devices.append(hctl)
    return devices


def is_used(sysfs: Tree, session: Session) -> bool:
    """Tell whether a session has a device that may be somebody's."""
    return any(scsi.holds_data(sysfs, hctl) for hctl in read_devices(sysfs, session))


def session_of_disk(sysfs: Tree, disk: Disk) -> Session | None:
    """Return the iSCSI session that a disk belongs to; None if it is of another transport
    or gone."""
    found = re.search(
        r"/session(\d+)/target", sysfs.link_path("bus/scsi/devices", str(disk.hctl)) or ""
    )
    return None if found is None else read_session(sysfs, int(found[1]))
