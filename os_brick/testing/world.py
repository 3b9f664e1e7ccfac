# SPDX-License-Identifier: Apache-2.0
"""What all parts of a fake host share: its files, time, faults, and news of changes."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass

from os_brick.initiator.linux.sysfs import Tree
from os_brick.testing.clock import VirtualClock
from os_brick.testing.faults import Delays, Faults
from os_brick.testing.files import DeviceTree, FaultyTree, Folder, Graveyard, new_folder


@dataclass(frozen=True)
class Loss:
    """Written data that will never reach its storage."""

    device: str
    data: bytes
    why: str


@dataclass(frozen=True)
class Change:
    """One change of the host by the library: a write to sysfs, an inquiry, a link."""

    kind: str
    what: str
    text: str = ""


class World:
    """The ground a fake host stands on.

    The model's state is guarded by ``lock``. Whoever waits does so without holding it.
    """

    def __init__(self, root: str | None) -> None:
        self._is_own_root = root is None
        self._is_closed = False
        self.root = os.path.realpath(new_folder() if root is None else root)
        os.makedirs(self.root, exist_ok=True)
        self.clock = VirtualClock()
        self.faults = Faults()
        self.delays = Delays()
        self.lock = threading.RLock()
        graveyard = Graveyard(os.path.join(self.root, ".graveyard"))
        self.sys = Folder(os.path.join(self.root, "sys"), graveyard)
        self.dev = Folder(os.path.join(self.root, "dev"), graveyard)
        self.proc = Folder(os.path.join(self.root, "proc"), graveyard)
        self.run = Folder(os.path.join(self.root, "run"), graveyard)
        self.etc = Folder(os.path.join(self.root, "etc"), graveyard)
        self.sysfs = FaultyTree(self.sys.root, "sys", self.faults)
        self.devfs = DeviceTree(self.dev.root, self.faults, Tree(self.sys.root))
        self.procfs = FaultyTree(self.proc.root, "proc", self.faults)
        self.runfs = FaultyTree(self.run.root, "run", self.faults)
        self.etcfs = FaultyTree(self.etc.root, "etc", self.faults)
        #: What the library did that a host would not forgive; told at the end of the test.
        self.complaints: list[str] = []
        self.lost: list[Loss] = []
        self.changes: list[Change] = []
        self.journal: list[str] = []
        self._waiting: set[threading.Event] = set()
        self._watchers: list[Callable[[], bool]] = []

    def lock_folder(self) -> str:
        """Return where the library's locks are.

        :raises RuntimeError: the host was closed; a thread that still runs must not make it again.
        """
        if self._is_closed:
            raise RuntimeError("this host was closed while a thread still worked on it")
        return f"{self.root}/locks"

    def close(self) -> None:
        """End the host's time, and remove its folder unless somebody gave it."""
        self._is_closed = True
        self.clock.close()
        if self._is_own_root:
            self._is_own_root = False
            # Out of the way of threads that are ending: they might write while it is emptied.
            gone = f"{self.root}.gone"
            os.rename(self.root, gone)
            shutil.rmtree(gone)

    def after(self, seconds: float, action: Callable[[], object]) -> Callable[[], None]:
        """Have the model change after some virtual time; at once with none."""

        def locked() -> None:
            with self.lock:
                action()
            self.notify()

        return self.clock.after(seconds, locked)

    def spend(self, seconds: float) -> None:
        """Let the calling thread take some virtual time."""
        self.clock.wait(seconds)

    def notify(self) -> None:
        """Tell those that wait for a change to look again."""
        with self.lock:
            for watcher in list(self._watchers):
                if watcher in self._watchers and watcher() and watcher in self._watchers:
                    self._watchers.remove(watcher)  # unless a change that it made has done so
        for event in list(self._waiting):
            event.set()

    def watch(self, watcher: Callable[[], bool]) -> None:
        """Call a function after each change of the model until it answers true."""
        with self.lock:
            self._watchers.append(watcher)

    def wait_for(self, probe: Callable[[], bool], limit_s: float) -> bool:
        """Wait until the model answers true, at most ``limit_s``; return the last answer."""
        changed = threading.Event()

        def locked_probe() -> bool:
            with self.lock:
                return probe()

        self._waiting.add(changed)
        try:
            return self.clock.wait_until(locked_probe, limit_s, changed)
        finally:
            self._waiting.discard(changed)

    def record(self, kind: str, what: str, text: str = "") -> None:
        """Enter a change of the host into the list that tests read."""
        with self.lock:
            self.changes.append(Change(kind, what, text))
            self.journal.append(f"{kind} {what} {text}".rstrip())
