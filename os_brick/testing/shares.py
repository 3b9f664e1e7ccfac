# SPDX-License-Identifier: Apache-2.0
"""Remote file systems: servers, their shares, and the programs that mount them.

After mount(8), mount.nfs(8), nfs(5), and what these print.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from os_brick.testing.block import Devices, octal
from os_brick.testing.process import Answer, Process
from os_brick.testing.programs import Program
from os_brick.testing.world import World

#: States of a server.
UP, SILENT, REFUSES = "up", "silent", "refuses"
# mount.nfs gives an NFSv4 server that does not answer two to three minutes.
_PATIENCE_S = 180.0
_MOUNT_FAILED = 32
_KINDS = {"glusterfs": "fuse.glusterfs", "sofs": "fuse.sofs", "quobyte": "fuse.quobyte"}


@dataclass(eq=False)
class Share:
    """One share of some server."""

    name: str
    kind: str = "nfs"
    state: str = UP
    #: Versions of NFS that its server speaks.
    versions: frozenset[str] = frozenset({"4.2", "4.1", "4.0", "3"})
    #: What mount says instead of mounting it.
    refusal: str = ""


@dataclass(eq=False)
class Mounted:
    """One line of the mount table."""

    point: str
    source: str
    type: str
    options: str
    share: Share | None = None
    busy: bool = False


@dataclass(eq=False)
class Shares:
    """All shares that this host could mount, and those that it has."""

    world: World
    devices: Devices
    exports: list[Share] = field(default_factory=list)
    mounted: list[Mounted] = field(default_factory=list)
    #: Directories made by ``mkdir``.
    directories: set[str] = field(default_factory=set)
    #: What ``cp`` was given: the target and the files' content by name.
    copied: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    passwords: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ids = itertools.count(500)
        self.devices.more_mounts.append(self._lines)

    def share(self, name: str = "192.0.2.1:/export", kind: str = "nfs") -> Share:
        """Make a share; mounts of others fail as for an unknown server."""
        made = Share(name, kind)
        self.exports.append(made)
        return made

    def occupy(self, point: str, source: str = "/dev/sdz1", kind: str = "ext4") -> Mounted:
        """Have something mounted at a point."""
        made = Mounted(point, source, kind, "rw")
        with self.world.lock:
            self.mounted.append(made)
            self.devices.show_mounts()
        return made

    def _lines(self) -> list[str]:
        return [
            f"{next(self._ids)} 22 0:{50 + number} / {octal(one.point)} rw,relatime shared:9 - "
            f"{one.type} {octal(one.source)} rw,{one.options}"
            for number, one in enumerate(self.mounted)
        ]

    def inventory(self) -> list[str]:
        """Return mounts and made directories, in words."""
        return [
            *(f"mount of {one.source} at {one.point}" for one in self.mounted),
            *(f"directory {one}" for one in sorted(self.directories)),
        ]

    def _at(self, point: str) -> Mounted | None:
        found = [one for one in self.mounted if one.point == point]
        return found[-1] if found else None

    # -- programs ------------------------------------------------------------------------------
    def programs(self) -> dict[str, Program]:
        """Return the programs by name."""
        return {
            "mkdir": self.mkdir,
            "rmdir": self.rmdir,
            "mount": self.mount,
            "umount": self.umount,
            "stat": self.stat,
            "cp": self.cp,
            "chown": self._nothing,
            "pstorage": self.pstorage,
            "pstorage-mount": self.pstorage_mount,
        }

    @staticmethod
    def _nothing(process: Process) -> Answer:
        return Answer()

    def mkdir(self, process: Process) -> Answer:
        """``mkdir -p DIRECTORY``; what is below ``/run`` is the host's own."""
        if not process.words[-1].startswith("/run/"):
            self.directories.add(process.words[-1])
        return Answer()

    def rmdir(self, process: Process) -> Answer:
        """``rmdir DIRECTORY``"""
        self.directories.discard(process.words[-1])
        return Answer()

    def stat(self, process: Process) -> Answer:
        """``stat -f DIRECTORY``, which asks the server; or ``stat -L -c "%f %s" FILE``."""
        if process.words[1] != "-f":
            return self._stat_file(process.words[-1])
        mounted = self._at(process.words[-1])
        share = mounted.share if mounted is not None else None
        if share is not None:
            process.unlocked_wait(lambda: share.state != SILENT)
            if share.refusal:
                said = f"stat: cannot read file system information: {share.refusal}\n"
                return Answer(1, err=said)
        return Answer(out="  File: ...\n")

    @staticmethod
    def _stat_file(path: str) -> Answer:
        try:
            status = os.stat(path)
        except OSError as exc:
            return Answer(1, err=f"stat: cannot statx '{path}': {exc.strerror}\n")
        return Answer(out=f"{status.st_mode:x} {status.st_size}\n")

    def mount(self, process: Process) -> Answer:
        """``mount -t TYPE [-o OPTIONS]… SHARE POINT``"""
        kind, name, point = process.words[2], process.words[-2], process.words[-1]
        options = ",".join(
            word for before, word in itertools.pairwise(process.words) if before == "-o"
        )
        return self._mount(process, kind, name, point, options)

    def _mount(self, process: Process, kind: str, name: str, point: str, options: str) -> Answer:
        said: Callable[[str], Answer] = lambda text: Answer(  # noqa: E731 - three words of each answer
            _MOUNT_FAILED, err=f"mount.{kind}: {text}\n"
        )
        if point not in self.directories:
            return said(f"mount point {point} does not exist")
        share = next((one for one in self.exports if one.name == name), None)
        if share is None:
            return said(f"Failed to resolve server {name.partition(':')[0]}: Name not known")
        if share.state == SILENT:
            process.unlocked_spend(_PATIENCE_S)
            return said("Connection timed out")
        if share.state == REFUSES:
            return said("Connection refused")
        if share.refusal:
            return said(share.refusal)
        if kind == "nfs" and not self._speaks(share, options):
            return said("Protocol not supported")
        mounted = self._at(point)
        if mounted is not None and mounted.share is share:
            return said(f"{name} is busy or already mounted")
        kind = _KINDS.get(kind, "nfs4" if kind == "nfs" else kind)
        self.mounted.append(Mounted(point, share.name.rstrip("/"), kind, options, share))
        self.devices.show_mounts()
        return Answer()

    @staticmethod
    def _speaks(share: Share, options: str) -> bool:
        given = dict(one.partition("=")[::2] for one in options.split(","))
        version = given.get("vers") or given.get("nfsvers") or ""
        if not version:
            return True
        if "." not in version and version == "4":
            version = f"4.{given.get('minorversion', '0')}"
        return version in share.versions

    def umount(self, process: Process) -> Answer:
        """``umount POINT``"""
        mounted = self._at(process.words[-1])
        if mounted is None:
            return Answer(_MOUNT_FAILED, err="umount: not mounted.\n")
        if mounted.busy:
            return Answer(_MOUNT_FAILED, err="umount: target is busy.\n")
        self.mounted.remove(mounted)
        self.devices.show_mounts()
        return Answer()

    def cp(self, process: Process) -> Answer:
        """``cp -f FILE FILE`` or ``cp -rf DIRECTORY DIRECTORY``"""
        source, target = process.words[-2:]
        paths = [source]
        if os.path.isdir(source):
            paths = [os.path.join(source, name) for name in sorted(os.listdir(source))]
        content = {}
        for path in paths:
            with open(path) as file:
                content[os.path.basename(path)] = file.read()
        self.copied.append((target, content))
        return Answer()

    def pstorage(self, process: Process) -> Answer:
        """``pstorage -c CLUSTER auth-node -P``"""
        self.passwords.append((process.words[2], process.stdin))
        return Answer()

    def pstorage_mount(self, process: Process) -> Answer:
        """``pstorage-mount -c CLUSTER POINT``"""
        cluster, point = process.words[2], process.words[-1]
        self.mounted.append(Mounted(point, f"pstorage://{cluster}", "fuse.pstorage", "rw"))
        self.devices.show_mounts()
        return Answer()
