# SPDX-License-Identifier: Apache-2.0
"""Faults to order, and the delays of a healthy host."""

from __future__ import annotations

import errno
import fnmatch
import os
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Delays:
    """Virtual seconds that things take on this host. Set them at any time."""

    #: iscsiadm, multipathd's client and the other programs: start and end of a process.
    program_s: float = 0.003
    #: From a scan (or an automatic scan at log-in) to the disk.
    disk_s: float = 0.005
    #: From a device's appearance or disappearance to udev's links.
    udev_s: float = 0.02
    #: From udev's news of a path to the map with it.
    multipath_build_s: float = 0.05
    #: From udev's news that a path is gone until multipathd has forgotten it.
    multipath_drop_s: float = 0.003
    #: How long a write to ``delete`` takes.
    delete_s: float = 0.01
    #: From a write to ``delete`` being over until the device is gone.
    removal_s: float = 0.0
    #: How long a write to ``scan`` takes.
    scan_s: float = 0.002
    #: Log-in to a portal that answers, and log-out.
    login_s: float = 0.02
    logout_s: float = 0.02
    #: From a path's death or return until multipathd's checker knows.
    checker_s: float = 0.0
    #: What iscsid waits before it connects again to a portal that refused.
    reopen_s: float = 3.0


@dataclass
class _ProgramFault:
    """What one kind of command does instead of its work, so many times."""

    words: tuple[str, ...]
    times: float
    code: int | None = None
    hangs: bool = False
    missing: bool = False
    seconds: float = 0.0
    out: str = ""
    err: str = ""
    acts: bool = False


@dataclass
class Faults:
    """What goes wrong. Commands are named by words which must all be in them: ``"multipath",
    "-f"``."""

    _programs: list[_ProgramFault] = field(default_factory=list)
    _unreadable: dict[str, int] = field(default_factory=dict)
    #: Virtual seconds that a write to sysfs takes instead of its delay, by kind (``scan``,
    #: ``delete`` …).
    slow_writes: dict[str, float] = field(default_factory=dict)
    #: Answers of writes to sysfs: an errno by kind.
    failing_writes: dict[str, int] = field(default_factory=dict)
    #: Called before each read of a tree with the entry's name: for happenings between two looks.
    on_read: Callable[[str], None] | None = None

    # -- to order --------------------------------------------------------------------------
    def hang(self, *words: str, times: float = float("inf")) -> None:
        """Have a command never end, so that its time limit must stop it."""
        self._programs.append(_ProgramFault(words, times, hangs=True))

    def miss(self, *words: str, times: float = float("inf")) -> None:
        """Have a command not be started at all, as where its program is not installed."""
        self._programs.append(_ProgramFault(words, times, missing=True))

    def fail(
        self, *words: str, code: int = 1, times: float = 1, err: str = "", out: str = ""
    ) -> None:
        """Have a command end with an exit code, so many times, without doing anything."""
        self._programs.append(_ProgramFault(words, times, code=code, err=err, out=out))

    def mumble(
        self,
        *words: str,
        err: str = "",
        out: str = "",
        code: int | None = None,
        times: float = float("inf"),
    ) -> None:
        """Have a command do its work, but print more than its answer before it, or end with another
        exit code."""
        self._programs.append(_ProgramFault(words, times, code=code, err=err, out=out, acts=True))

    def slow(self, *words: str, seconds: float, times: float = float("inf")) -> None:
        """Have a command take longer, then do its work."""
        self._programs.append(_ProgramFault(words, times, seconds=seconds, acts=True))

    def unreadable(self, pattern: str, error: int = errno.EACCES) -> None:
        """Have reading entries of a tree fail: a file name pattern such as
        ``"sys/class/iscsi_session*"``."""
        self._unreadable[pattern] = error

    def mend(self) -> None:
        """Take all faults back."""
        self._programs.clear()
        self._unreadable.clear()
        self.slow_writes.clear()
        self.failing_writes.clear()
        self.on_read = None

    # -- for the host ----------------------------------------------------------------------
    def of_command(self, command: tuple[str, ...]) -> list[_ProgramFault]:
        """Return the faults that befall this run of a command; each counts as used once."""
        met = []
        for fault in self._programs:
            if fault.times > 0 and all(word in command for word in fault.words):
                fault.times -= 1
                met.append(fault)
                if not fault.acts:
                    break
        return met

    @property
    def concern_reading(self) -> bool:
        """Whether reading an entry of a tree may fail or make something happen."""
        return self.on_read is not None or bool(self._unreadable)

    def check_readable(self, name: str) -> None:
        """Raise OSError if this entry cannot be read now."""
        if self.on_read is not None:
            self.on_read(name)
        for pattern, error in self._unreadable.items():
            if fnmatch.fnmatch(name, pattern):
                raise OSError(error, os.strerror(error), name)
