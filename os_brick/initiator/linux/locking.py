# SPDX-License-Identifier: Apache-2.0
"""Locks per volume and per session, across threads and processes, of one file in all.

A lock is a kernel lock on one byte of the file ``os-brick.locks`` in ``[os_brick] lock_path``; the
byte's offset is a hash of what is locked. So their number on disk is bounded (one file), nothing is
left behind by targets that are long gone, and two names meet by chance once in 2**62. They are
locks of an *open file description* (fcntl(2), ``F_OFD_SETLK``, Linux 3.15): each holder opens the
file anew, so threads exclude each other as processes do, and the kernel releases them when a
process dies.

Waiting is polling through :class:`~os_brick.initiator.linux.call.Call`: it counts against the
deadline and lets green threads run, which a blocking fcntl would not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux.call import Call

LOG = logging.getLogger(__name__)

_FILE = "os-brick.locks"
# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (fcntl(2)).
_FLOCK = struct.Struct("hhqqi4x")


def _offset(name: str) -> int:
    """Return the byte that stands for a name: 62 bits of its hash, which fits every off_t."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2


class Locks:
    """All locks below one directory.

    :param directory: called at each use, since services set the option after import.
    """

    def __init__(self, directory: Callable[[], str]) -> None:
        self._directory = directory

    @contextlib.contextmanager
    def held(self, call: Call, names: Iterable[str], *, shared: bool = False) -> Iterator[None]:
        """Hold the locks of all ``names``, taken in one fixed order, while the block runs.

        :raises DeadlineExceeded: when they could not be had before the call's deadline.
        """
        wanted = sorted(set(names))
        with contextlib.ExitStack() as stack:
            for name in wanted:
                with call.step(f"lock {name}", quiet=True) as step:
                    fd = self._open()
                    stack.callback(self._release, fd)
                    if not call.wait_until(partial(_set, fd, name, shared), what=f"lock {name}"):
                        raise exception.DeadlineExceeded(
                            what=f"the lock of {name}", seconds=call.limit_s
                        )
                    step.waited_for = f"lock {name}"
            yield

    @contextlib.contextmanager
    def tried(self, name: str, *, shared: bool = False) -> Iterator[bool]:
        """Try once for a lock; the block is told whether it has it."""
        fd = self._open()
        try:
            yield _set(fd, name, shared)
        finally:
            self._release(fd)

    def taken(self, name: str, keep: contextlib.ExitStack, *, shared: bool = False) -> bool:
        """Try once for a lock, which is then held until ``keep`` is closed; tell whether it was
        had."""
        with contextlib.ExitStack() as trial:
            had = trial.enter_context(self.tried(name, shared=shared))
            if had:
                keep.push(trial.pop_all())
        return had

    @contextlib.contextmanager
    def held_if_soon(self, call: Call, names: Iterable[str], within_s: float) -> Iterator[bool]:
        """Hold the locks of all ``names`` while the block runs if they can be had soon; the block
        is told whether."""
        moment = call.later(call.operation, within_s)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.held(moment, names))
                had = True
            except exception.DeadlineExceeded:
                had = False
            yield had

    def _open(self) -> int:
        directory = self._directory()
        path = os.path.join(directory, _FILE)
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)
        self._make_file(directory, path)
        return os.open(path, flags)

    @staticmethod
    def _make_file(directory: str, path: str) -> None:
        """Make the file, if nobody else has.

        Services of several users may share the directory: whoever may write there may lock there,
        and the file is not seen before that is so.
        """
        owner = os.stat(directory)

        def share(fd: int) -> None:
            with contextlib.suppress(OSError):  # vfat has no modes
                os.fchmod(fd, stat.S_IMODE(owner.st_mode) & 0o666 | 0o600)
            # Not allowed if the directory is of a group that we are not in, and not possible if its
            # owner is unknown in our user namespace (EINVAL).
            with contextlib.suppress(OSError):
                os.fchown(fd, owner.st_uid if os.geteuid() == 0 else -1, owner.st_gid)

        fd, staging = tempfile.mkstemp(dir=directory)
        try:
            share(fd)
            os.link(staging, path)
        except FileExistsError:
            pass
        except OSError:  # a file system (vfat, CIFS) or a profile that allows no second name
            with contextlib.suppress(FileExistsError):
                made = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o644)
                try:
                    share(made)
                finally:
                    os.close(made)
        finally:
            os.close(fd)
            os.unlink(staging)

    @staticmethod
    def _release(fd: int) -> None:
        # Unlocked by hand: a process forked meanwhile shares the description and would go on
        # holding.
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
        os.close(fd)


@contextlib.contextmanager
def held_if_possible(locks: Locks, call: Call, names: Iterable[str]) -> Iterator[None]:
    """Hold the locks, or nothing where the service has configured no directory for them.

    For protocols whose services may do without ``[os_brick] lock_path``: what the lock keeps apart
    must come out right all the same, by looking again.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.held(call, names))
        except cfg.RequiredOptError:
            LOG.debug("No lock_path is configured: going on without the locks of %s", names)
        yield


def _set(fd: int, name: str, shared: bool) -> bool:
    """Try to lock; False if another holds it."""
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, _offset(name), 1, 0))
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
