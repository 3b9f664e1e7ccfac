# SPDX-License-Identifier: Apache-2.0
"""Multipath maps from sysfs, and what multipathd is asked to do.

Only device-mapper devices whose uuid begins with ``mpath-`` are multipath maps; LVM, crypt and
other mappings on a disk are somebody's use of it. A map is named to the tools by its name
(``dm/name``), never by its wwid, which they do not know where friendly names are on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from os_brick import exception
from os_brick.initiator.linux import multipathd, scsi
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.programs import Result
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.sysfs import Tree

_PREFIX = "mpath-"
# multipathd answers its clients within uxsock_timeout, 4 s by default; a busy daemon is given more.
_CLIENT_LIMIT_S = 15.0
# `multipath -C` runs the path checkers, whose own time limit is the SCSI one.
_CHECK_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True, order=True)
class Map:
    """One multipath map as it was seen; a later one of the same name is another instance."""

    name: str
    """Kernel name, ``"dm-3"``."""
    label: str
    """Name for the tools: the wwid or a friendly one such as ``"mpatha"``."""
    wwid: str
    instance: int

    @property
    def path(self) -> str:
        """Its device node."""
        return f"/dev/{self.name}"

    def __str__(self) -> str:
        return f"{self.name} ({self.label})"


# -- reading ---------------------------------------------------------------------------------
def read_map(sysfs: Tree, name: str) -> Map | None:
    """Return the multipath map with a kernel name; None if there is none, or it is another
    mapping."""
    uuid = sysfs.text("block", name, "dm/uuid")
    instance = sysfs.instance("block", name)
    if not uuid.startswith(_PREFIX) or instance is None:
        return None
    return Map(name, sysfs.text("block", name, "dm/name"), uuid.removeprefix(_PREFIX), instance)


def find_map_over(sysfs: Tree, disk: Disk) -> Map | None:
    """Return the multipath map that a disk is a path of."""
    found = find_map_on(sysfs, disk.name)
    # Looked at afterwards, so that it is no later disk of the same name that is in the map.
    return found if found is not None and scsi.is_there(sysfs, disk) else None


def find_map_on(sysfs: Tree, name: str) -> Map | None:
    """Return the multipath map on a block device of any kind."""
    for holder in sysfs.names("block", name, "holders"):
        found = read_map(sysfs, holder) if holder.startswith("dm-") else None
        if found is not None:
            return found
    return None


def find_maps(sysfs: Tree, disks: Iterable[Disk]) -> list[Map]:
    """Return the multipath maps over any of the disks, each once."""
    names: dict[str, None] = {}
    for disk in disks:
        holders = sysfs.names("block", disk.name, "holders")
        # Looked at afterwards, so that it is no later disk of the same name that they hold.
        if holders and scsi.is_there(sysfs, disk):
            names.update((holder, None) for holder in holders if holder.startswith("dm-"))
    maps = (read_map(sysfs, name) for name in names)
    return [one for one in maps if one is not None]


def member_names(sysfs: Tree, one: Map) -> list[str]:
    """Return the kernel names of a map's paths."""
    return sysfs.names("block", one.name, "slaves")


def read_members(sysfs: Tree, one: Map) -> list[Disk]:
    """Return the disks that are paths of a map.

    A map keeps the name of a path that has gone, which may be another volume's by then: that one
    does not know of the map.
    """
    disks = (scsi.read_disk_named(sysfs, name) for name in member_names(sysfs, one))
    return [
        disk
        for disk in disks
        if disk is not None and one.name in sysfs.names("block", disk.name, "holders")
    ]


def is_there(sysfs: Tree, one: Map) -> bool:
    """Tell whether this very map still exists."""
    return sysfs.instance("block", one.name) == one.instance


def has_running_path(sysfs: Tree, one: Map) -> bool:
    """Tell whether the kernel takes I/O for any path of a map."""
    return any(scsi.state(sysfs, disk) == "running" for disk in read_members(sysfs, one))


def is_ready(sysfs: Tree, one: Map) -> bool:
    """Tell whether the kernel has a map set up: a table with a size, not suspended, a
    running path."""
    return (
        sysfs.text("block", one.name, "dm/suspended") == "0"
        and bool(sysfs.number("block", one.name, "size"))
        and has_running_path(sysfs, one)
    )


# -- asking the tools ------------------------------------------------------------------------
def daemon_status(host: Host, call: Call) -> Result:
    """Ask multipathd how it is."""
    return _ask(host, call, "show", "status")


def daemon_answers(host: Host, call: Call) -> bool:
    """Tell whether multipathd is running."""
    return says_running(daemon_status(host, call))


def is_daemon_there(host: Host, call: Call) -> bool | None:
    """Tell whether multipathd is running; None if it is but does not answer now."""
    status = daemon_status(host, call)
    if says_running(status):
        return True
    # Without an error it is its socket that did not answer in time.
    late = status.code is None and isinstance(status.error, exception.ExecutionTimeout | None)
    return None if late or status.out.startswith("timeout") else False


def says_running(status: Result) -> bool:
    """Tell from its answer whether multipathd is running.

    Older clients fail without an exit code (bug 1789699).
    """
    return status.code == 0 and not status.out.startswith("error receiving packet")


def has_usable_path(host: Host, call: Call, one: Map) -> Result:
    """Ask the path checkers about a map; exit code 0 means that I/O is likely to succeed."""
    return host.programs.run(call, "multipath", "-C", one.name, limit_s=_CHECK_LIMIT_S)


def remember_wwid(host: Host, call: Call, wwid: str) -> bool:
    """Have a volume be multipathed from its first path on, whatever ``find_multipaths`` says."""
    result = host.programs.run(call, "multipath", "-a", wwid, limit_s=_CLIENT_LIMIT_S)
    return f"wwid '{wwid}' added" in result.out


def add_path(host: Host, call: Call, disk: Disk) -> Result:
    """Have multipathd consider a disk now; it answers ``ok``, ``fail`` or ``blacklisted``."""
    return _client(host, call, "add", "path", disk.path)


def del_path(host: Host, call: Call, device: str) -> bool:
    """Have multipathd forget a path."""
    return _client(host, call, "del", "path", device).out.strip() == "ok"


def del_map(host: Host, call: Call, label: str) -> Result:
    """Have multipathd remove a map without flushing it."""
    return _client(host, call, "del", "map", label)


def disable_queueing(host: Host, call: Call, one: Map) -> Result:
    """Have I/O to a map without paths fail instead of waiting for ever.

    Where the daemon does not do it, the kernel is told through dmsetup (dm-mpath's own message).
    """
    result = _client(host, call, "disablequeueing", "map", one.label)
    if result.code == 0 and result.out.strip() in ("ok", ""):
        return result
    return host.programs.run(
        call, "dmsetup", "message", one.label, "0", "fail_if_no_path", limit_s=_CLIENT_LIMIT_S
    )


def remove_map(host: Host, call: Call, label: str, limit_s: float) -> Result:
    """Flush and remove a map; exit code 0 means so, 1 mostly that it is in use."""
    return host.programs.run(call, "multipath", "-f", label, limit_s=limit_s)


def resize_map(host: Host, call: Call, one: Map) -> Result:
    """Have multipathd give a map the size of its paths; by kernel name, which is always right."""
    return _client(host, call, "resize", "map", one.path)


def reload_map(host: Host, call: Call, one: Map) -> Result:
    """Have multipathd load a map's table anew; writable if all its paths are."""
    return _client(host, call, "reload", "map", one.label)


def known_paths(host: Host, call: Call) -> set[tuple[str, str]] | None:
    """Return (kernel name, H:C:T:L) of all paths multipathd monitors; None if it does not
    answer."""
    result = _ask(host, call, "show", "paths", "raw", "format", "%d %i")
    if result.code != 0 or result.out.startswith(("error", "timeout")):
        return None
    return parse_paths(result.out)


def parse_paths(text: str) -> set[tuple[str, str]]:
    """Return (kernel name, H:C:T:L) from lines ``sda 3:0:0:1``."""
    rows = (line.split() for line in text.splitlines())
    return {(row[0], row[1]) for row in rows if len(row) >= 2}


def _ask(host: Host, call: Call, *words: str) -> Result:
    """Ask the daemon what anybody may know, by its socket where that is to be had."""
    try:
        said = host.changes.ask_multipathd(call, *words)
    except TimeoutError as exc:
        return Result(None, "", str(exc))
    if said is None:
        return _client(host, call, *words)
    return Result(1 if said.startswith(multipathd.FAILURES) else 0, said, "")


def _client(host: Host, call: Call, *words: str) -> Result:
    return host.programs.run(call, "multipathd", *words, limit_s=_CLIENT_LIMIT_S)
