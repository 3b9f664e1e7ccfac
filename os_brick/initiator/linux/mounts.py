# SPDX-License-Identifier: Apache-2.0
"""The kernel's mount table, and whether a share is mounted by it.

Source: proc(5), ``/proc/pid/mountinfo``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from os_brick.initiator.linux.sysfs import Tree

_SLASHES = re.compile(r"//+")
#: How the kernel names what is mounted where that is not the share: by type, how the name begins.
_OWN_NAMES = {
    # quobyte@HOST:PORT, whatever the volume
    "quobyte": ("quobyte@", "quobyte://"),
    # pstorage://CLUSTER, and newer vstorage://CLUSTER
    "vzstorage": ("pstorage://", "vstorage://"),
}


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table.

    :ivar source: what is mounted, as the file system names it: ``server:/export``.
    :ivar number: device number of the file system, ``"0:52"``.
    :ivar id: what tells it from other mounts at its point.
    :ivar parent: ``id`` of the mount that it is on.
    """

    point: str
    source: str
    type: str
    number: str
    id: str = field(default="", compare=False)
    parent: str = field(default="", compare=False)


def parse_mounts(text: str) -> list[Mount]:
    """Read a mount table, in its order."""
    found = []
    for line in text.splitlines():
        words = line.split(" ")
        if line.startswith("#") or "-" not in words[6:] or len(words) < 10:
            continue
        after = words.index("-", 6)
        if len(words) > after + 2:
            source, kind = words[after + 2], words[after + 1]
            point = _decoded(words[4])
            found.append(Mount(point, _decoded(source), kind, words[2], words[0], words[1]))
    return found


def visible(found: Sequence[Mount]) -> list[Mount]:
    """Return those mounts that their points lead to.

    The others are still in the table, but below what was mounted later at the same point or at a
    directory above it: whoever uses their points gets that file system.
    """
    # What is at "/" is one: a path begins at this process's root, also below what was mounted on it
    # (``mount --rbind / /``).
    ids = {one.id for one in found if one.point != "/"}
    upon = {
        (one.parent if one.parent in ids and one.parent != one.id else "", one.point): one.id
        for one in found
        if one.point != "/"
    }
    known: dict[str, str] = {"/": ""}

    def reached(path: str) -> str:
        """Follow a path as the kernel does: at each directory into what is mounted there."""
        if path not in known:
            above = os.path.dirname(path)
            here = "" if above == path else reached(above)
            for _stacked in found:  # no table can keep us here for ever
                if (here, path) not in upon:
                    break
                here = upon[here, path]
            known[path] = here
        return known[path]

    return [
        one
        for one in found
        if one.point == "/" or (one.point[:1] == "/" and reached(one.point) == one.id)
    ]


def _decoded(text: str) -> str:
    """Return a field of the table without its escapes of blanks and backslashes."""
    if "\\" not in text:
        return text
    data = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 255]), text.encode())
    return data.decode("utf-8", "surrogateescape")


def read_mounts(proc: Tree) -> list[Mount]:
    """Return what is mounted, as this process sees it: it is this process's callers that will use
    the files.

    :raises OSError: the table could not be read.
    """
    data = proc.data("self/mountinfo")
    if data is None:
        raise FileNotFoundError("there is no mount table, /proc/self/mountinfo")
    return parse_mounts(data.decode("utf-8", "surrogateescape"))


def read_sources(proc: Tree) -> dict[str, str]:
    """Return what is mounted and not hidden by another mount, by the point where it is."""
    return {mount.point: mount.source for mount in visible(read_mounts(proc))}


def real_point(base: str, name: str) -> str:
    """Return a mount point as the table has it: below the base with its links followed.

    The mount point itself is not looked at: its server may be dead.
    """
    return os.path.join(os.path.realpath(base), name)


def source_at(sources: Mapping[str, str], point: str) -> str | None:
    """Return what is mounted at a point, links in the path to it followed or not."""
    base, name = os.path.split(point.rstrip("/") or "/")
    for place in (real_point(base, name), os.path.normpath(point), point):
        if place in sources:
            return sources[place]
    return None


def is_same_source(mount_type: str, source: str, share: str) -> bool:
    """Tell whether what is mounted is the share.

    :param mount_type: of the share: ``nfs``, ``cifs`` …; some file systems name what is mounted in
        ways that do not tell the share, then a name of their kind has to do.
    """
    begins = _OWN_NAMES.get(mount_type)
    if begins is not None and source.startswith(begins):
        return True
    if mount_type == "scality":
        return True  # the share plays no part; the base is mounted
    if mount_type == "glusterfs":
        # Several servers may be given, of which the table names one.
        hosts, _colon, volume = share.partition(":")
        return any(
            _normal(mount_type, source) == _normal(mount_type, f"{host}:{volume}")
            for host in hosts.split(",")
        )
    return _normal(mount_type, source) == _normal(mount_type, share)


def _normal(mount_type: str, share: str) -> str:
    """Return a share in one of the ways it can be written.

    The kernel leaves out slashes at the end and repeated ones of NFS exports, addresses can be
    written in several ways, and those of IPv6 with and without brackets.
    """
    if mount_type == "cifs":
        return "/" + _SLASHES.sub("/", share.replace("\\", "/")).rstrip("/").lower()
    host, path = _split(share)
    if not path and not host:
        return share
    return f"{_normal_host(host)}:/{_SLASHES.sub('/', path).strip('/')}"


def _split(share: str) -> tuple[str, str]:
    if share.startswith("["):
        host, bracket, path = share[1:].partition("]:")
        return (host, path) if bracket else ("", "")
    host, colon, path = share.partition(":/")
    if not colon:
        host, colon, path = share.partition(":")
    return (host, path) if colon else ("", "")


def _normal_host(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return host.lower()
