# SPDX-License-Identifier: Apache-2.0
"""File trees that change as a kernel's do, and reading them with faults."""

from __future__ import annotations

import itertools
import os
import tempfile

from os_brick.initiator.linux.sysfs import Tree
from os_brick.testing.faults import Faults

# A memory file system as a container may have it (64 MB) is too small for several hosts at once.
_SHM, _SHM_FREE = "/dev/shm", 1 << 28  # noqa: S108 - only asked whether it is there; mkdtemp makes the folder
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def new_folder() -> str:
    """Return a new empty folder, in memory where there is room: a host's many small files take a
    disk's file system ten times as long."""
    try:
        room = os.statvfs(_SHM)
        if room.f_bavail * room.f_frsize >= _SHM_FREE:
            return tempfile.mkdtemp(prefix="fake-host-", dir=_SHM)
    except OSError:
        pass  # there is none, or none for this user
    return tempfile.mkdtemp(prefix="fake-host-")


class Graveyard:
    """A folder for what is being made and what is gone, by ever new names."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._numbers = itertools.count()
        os.makedirs(root, exist_ok=True)

    def new_path(self) -> str:
        """Return a path that was never used."""
        return f"{self._root}/{next(self._numbers)}"


class Folder:
    """Writes one tree of files below a root.

    A directory is built elsewhere and appears whole; one that goes is moved to a graveyard, so that
    its inode number is not given to another while the host lives: the library tells instances by
    it.
    """

    def __init__(self, root: str, graveyard: Graveyard) -> None:
        self.root = root
        self._graveyard = graveyard
        os.makedirs(root, exist_ok=True)

    def path(self, name: str) -> str:
        """Return where an entry lies on this machine."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Tell whether an entry is there; links are followed."""
        return os.path.exists(self.path(name))

    def write(self, name: str, value: object) -> None:
        """Write a file at once, as a reader of sysfs sees it: the old or the new content, never
        half of it."""
        staging = self._graveyard.new_path()
        _write(staging, value)
        self._appear(staging, name)

    def read(self, name: str) -> str:
        """Return the stripped text of a file; empty if it is not there."""
        try:
            with open(self.path(name), encoding="utf-8") as file:
                return file.read().strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def directory(self, name: str, files: dict[str, object]) -> None:
        """Make a directory with all its files appear. A name that ends in ``/`` is an empty
        directory in it."""
        staging = self._graveyard.new_path()
        os.mkdir(staging)
        for file, value in files.items():
            folder, _, file_name = f"{staging}/{file}".rpartition("/")
            if folder != staging:
                os.makedirs(folder, exist_ok=True)
            if file_name:
                _write(f"{folder}/{file_name}", value)
        self._appear(staging, name)

    def _appear(self, staging: str, name: str) -> None:
        """Move what was made elsewhere to its place."""
        path = self.path(name)
        try:
            os.rename(staging, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.rename(staging, path)

    def remove(self, name: str) -> None:
        """Make a file, link or directory disappear at once; nothing happens if it is not there."""
        try:
            os.rename(self.path(name), self._graveyard.new_path())
        except FileNotFoundError:
            pass

    def link(self, name: str, target: str) -> None:
        """Make a relative link to another entry of this tree, in place of whatever has its name."""
        staging = self._graveyard.new_path()
        os.symlink(_relative(name, target), staging)
        self._appear(staging, name)

    def names(self, name: str) -> list[str]:
        """Return the sorted names in a directory; none if it is not there."""
        try:
            return sorted(os.listdir(self.path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return []


def _relative(link: str, target: str) -> str:
    """Return the text of a link as the kernel and udev write it: up to a directory above the
    target, then down to its name.

    Both are places in one tree.
    """
    above, down = link.split("/")[:-1], target.split("/")
    common = 0
    # never down to the target's own name: the link may lie in the target
    while common < min(len(above), len(down) - 1) and above[common] == down[common]:
        common += 1
    return "/".join([".."] * (len(above) - common) + down[common:])


def _write(path: str, value: object) -> None:
    data = value if isinstance(value, bytes) else f"{value}\n".encode()
    fd = os.open(path, _FILE_FLAGS, 0o644)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


class FaultyTree(Tree):
    """A tree whose entries can be made unreadable
    (:meth:`os_brick.testing.faults.Faults.unreadable`)."""

    __slots__ = ("_faults", "_name")

    def __init__(self, root: str, name: str, faults: Faults) -> None:
        super().__init__(root)
        self._name = name
        self._faults = faults

    def names(self, *parts: str) -> list[str]:
        self._check(parts)
        return super().names(*parts)

    def data(self, *parts: str) -> bytes | None:
        self._check(parts)
        return super().data(*parts)

    def link_target(self, *parts: str) -> str | None:
        self._check(parts)
        return super().link_target(*parts)

    def instance(self, *parts: str) -> int | None:
        self._check(parts)
        return super().instance(*parts)

    def real_path(self, *parts: str) -> str | None:
        self._check(parts)
        return super().real_path(*parts)

    def _check(self, parts: tuple[str, ...]) -> None:
        if self._faults.concern_reading:
            self._faults.check_readable("/".join((self._name, *parts)))


class DeviceTree(FaultyTree):
    """``/dev`` in a folder: plain files stand for device nodes, and links keep the text they were
    made with."""

    __slots__ = ("_sysfs", "absolute_links")

    def __init__(self, root: str, faults: Faults, sysfs: Tree) -> None:
        super().__init__(root, "dev", faults)
        self._sysfs = sysfs
        #: Absolute texts of links that lead inside the folder all the same, by path on this
        #: machine.
        self.absolute_links: dict[str, str] = {}

    def link_target(self, *parts: str) -> str | None:
        text = super().link_target(*parts)
        return None if text is None else self.absolute_links.get(self.path(*parts), text)

    def device_number(self, *parts: str) -> tuple[int, int] | None:
        self._check(parts)
        real = os.path.realpath(self.path(*parts))
        if not os.path.isfile(real) or os.path.dirname(real) != os.path.realpath(self.root):
            return None
        major, _, minor = self._sysfs.text("class/block", os.path.basename(real), "dev").partition(
            ":"
        )
        return (int(major), int(minor)) if minor else None
