# SPDX-License-Identifier: Apache-2.0
"""Reading the kernel's file trees (``/sys``, ``/proc``, ``/dev``) under a root that a test can set.

A directory may vanish between listing and reading, so absence is an ordinary answer here.
Everything else that keeps us from looking (no permission, an I/O error, the tree not mounted at
all) is raised: "could not look" must never be taken for "nothing there".
"""

from __future__ import annotations

import errno
import os
import stat

# What the kernel answers for an object that is gone or going: the entry is not there, or it is
# there but its device is not (ENODEV, ENXIO), or the attribute has no value for it (EINVAL), or
# not while it has no connection (ENOTCONN: the address of an iSCSI connection).
_ABSENT = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENODEV,
        errno.ENXIO,
        errno.EINVAL,
        errno.ENOTCONN,
    }
)
_CHUNK = 65536
_PAGE = 4096


class Tree:
    """Read-only view of one tree of files, for example ``Tree("/sys")``.

    :param root: directory that stands for the tree. All other arguments are relative to it.
    :param reads_pages: a read that gives less than a page has come to the end, so that no other is
        needed: true of sysfs (kernel: ``fs/kernfs/file.c``), not of /proc.

    Every method raises :class:`OSError` when the host could not be looked at.
    """

    __slots__ = ("_reads_pages", "root")

    def __init__(self, root: str, *, reads_pages: bool = False) -> None:
        self.root = root
        self._reads_pages = reads_pages

    def path(self, *parts: str) -> str:
        """Return the path of an entry on this machine; it need not exist."""
        return "/".join((self.root, *parts))

    def names(self, *parts: str) -> list[str]:
        """Return the sorted names in a directory; an empty list if it is not there."""
        try:
            return sorted(os.listdir(self.path(*parts)))
        except OSError as exc:
            if exc.errno in _ABSENT and self._is_mounted():
                return []
            raise

    def data(self, *parts: str) -> bytes | None:
        """Return the content of a file; None if it is not there."""
        try:
            fd = os.open(self.path(*parts), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno in _ABSENT and self._is_mounted():
                return None
            raise
        try:
            content = os.read(fd, _CHUNK)
            if self._reads_pages and len(content) < _PAGE:
                return content
            while chunk := os.read(fd, _CHUNK):
                content += chunk
            return content
        except OSError as exc:
            if exc.errno in _ABSENT:
                return None
            raise
        finally:
            os.close(fd)

    def text(self, *parts: str, default: str = "") -> str:
        """Return the stripped text of a file; ``default`` if it is not there."""
        data = self.data(*parts)
        return default if data is None else data.decode("utf-8", "replace").strip()

    def number(self, *parts: str) -> int | None:
        """Return the decimal number in a file; None if it is not there or no number."""
        text = self.text(*parts)
        try:
            return int(text)
        except ValueError:
            return None

    def link_name(self, *parts: str) -> str | None:
        """Return the last component of a symbolic link's target; None if there is no such link."""
        target = self.link_target(*parts)
        return None if target is None else target.rstrip("/").rpartition("/")[2]

    def link_target(self, *parts: str) -> str | None:
        """Return the text of a symbolic link; None if there is no such link."""
        try:
            return os.readlink(self.path(*parts))
        except OSError as exc:
            if exc.errno in _ABSENT and self._is_mounted():
                return None
            raise

    def link_path(self, *parts: str) -> str | None:
        """Return where a symbolic link leads, as a path below the root; None if there is none.

        For links like those of ``/sys/class``: one leads straight to its device, by folders that
        are no links themselves.
        """
        target = self.link_target(*parts)
        if target is None:
            return None
        return os.path.normpath(f"/{'/'.join(parts)}/../{target}").lstrip("/")

    def real_path(self, *parts: str) -> str | None:
        """Return the path of an entry with all links followed; None if it is not there."""
        path = os.path.realpath(self.path(*parts))
        return path if self.exists(*parts) else None

    def instance(self, *parts: str) -> int | None:
        """Return a number for this very object, which a later one of the same name will not have.

        It is the inode number: sysfs (kernfs) hands these out in a cycle and, since Linux 5.5, with
        a generation, so that a device that comes back under its old name gets another one.
        """
        try:
            return os.stat(self.path(*parts)).st_ino
        except OSError as exc:
            if exc.errno in _ABSENT and self._is_mounted():
                return None
            raise

    def device_number(self, *parts: str) -> tuple[int, int] | None:
        """Return (major, minor) of a device node; None if there is no such node."""
        try:
            status = os.stat(self.path(*parts))
        except OSError as exc:
            if exc.errno in _ABSENT and self._is_mounted():
                return None
            raise
        if not (stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)):
            return None
        return os.major(status.st_rdev), os.minor(status.st_rdev)

    def exists(self, *parts: str) -> bool:
        """Tell whether an entry is there (links are followed)."""
        return self.instance(*parts) is not None

    def _is_mounted(self) -> bool:
        """Tell whether the tree itself is there, so that a missing entry means what it says."""
        return os.path.isdir(self.root)
