# SPDX-License-Identifier: Apache-2.0
"""Faults to order: of the network, of programs, of daemons, of callers."""

from __future__ import annotations

import os
import pathlib
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable

from . import kernel

#: Wrappers of programs live here; the folder comes first in the library's PATH.
WRAPPERS = pathlib.Path("/run/lab-wrappers")
_PROGRAM_PLACES = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")


class Network:
    """Faults of portals; each is taken back by ``heal``."""

    def __init__(self) -> None:
        self._rules: list[list[str]] = []
        self._lossy = False

    def silence(self, portal: str) -> None:
        """Let nothing through to or from a portal, without a word: a dead switch."""
        self._rule("INPUT", portal, "-d", "--dport", "DROP")
        self._rule("OUTPUT", portal, "-s", "--sport", "DROP")

    def refuse(self, portal: str) -> None:
        """Answer each packet to a portal by a reset: a host without the service."""
        self._rule("INPUT", portal, "-d", "--dport", "REJECT")

    def lose(self, percent: int) -> None:
        """Lose a part of all packets on the loopback interface."""
        kernel.load("sch_netem")
        kernel.run("tc", "qdisc", "replace", "dev", "lo", "root", "netem", "loss", f"{percent}%")
        self._lossy = True

    def heal(self) -> None:
        """Take all faults of the network back."""
        for rule in reversed(self._rules):
            kernel.run("iptables-legacy", "-D", *rule)
        self._rules.clear()
        if self._lossy:
            kernel.run("tc", "qdisc", "del", "dev", "lo", "root")
            self._lossy = False

    def _rule(self, chain: str, portal: str, which: str, port_is: str, verdict: str) -> None:
        address, _, port = portal.rpartition(":")
        rule = [chain, which, address, "-p", "tcp", port_is, port, "-j", verdict]
        if verdict == "REJECT":
            rule += ["--reject-with", "tcp-reset"]
        kernel.run("iptables-legacy", "-I", *rule)
        self._rules.append(rule)


class Programs:
    """Faults of programs that the library runs: a wrapper is found before the real one."""

    def hang(self, program: str, *, when: str = "*") -> None:
        """Make a program hang for ever, and ignore TERM, when its arguments fit a shell pattern.

        A call that does not fit runs the real program.
        """
        self._wrap(program, when, "trap '' TERM INT HUP\n    exec sleep 100000")

    def fail(self, program: str, code: int, *, when: str = "*", text: str = "") -> None:
        """Make a program end with ``code`` and ``text`` on stderr."""
        self._wrap(program, when, f"echo '{text}' >&2\n    exit {code}")

    def crash(self, program: str, *, times: int, after: bool = False) -> None:
        """Have a program die of SIGSEGV so many times, before its work or after it."""
        WRAPPERS.mkdir(exist_ok=True)
        left = WRAPPERS / f".{program}"
        left.write_text(f"{times}\n")
        left.chmod(0o666)
        work = 'REAL "$@"; ' if after else ""
        self._wrap(
            program,
            "*",
            f"left=$(cat {left})\n    if [ $left -gt 0 ]; then\n"
            f"        echo $((left - 1)) >{left}\n        {work}kill -SEGV $$\n    fi",
        )

    def heal(self) -> None:
        """Take the wrappers away and kill what hangs in them."""
        for name in kernel.names(WRAPPERS):
            (WRAPPERS / name).unlink()
        for pid in hanging():
            _kill(pid)

    def _wrap(self, program: str, when: str, deed: str) -> None:
        places = [f"{place}/{program}" for place in _PROGRAM_PLACES]
        real = next(place for place in places if os.path.exists(place))
        WRAPPERS.mkdir(exist_ok=True)
        wrapper = WRAPPERS / program
        deed = deed.replace("REAL", real)
        pattern = when.replace(" ", "\\ ")  # the shell would end it there
        wrapper.write_text(
            f'#!/bin/sh\ncase "$*" in\n{pattern})\n    {deed};;\nesac\nexec {real} "$@"\n'
        )
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def hanging() -> list[int]:
    """Return the pids of programs that hang because of ``Programs.hang``."""
    return [
        int(pid)
        for pid in kernel.names("/proc")
        if pid.isdigit() and kernel.read(f"/proc/{pid}/cmdline").startswith("sleep\x00100000")
    ]


class StuckWriter:
    """A process with dirty data for a device, as a virtual machine that is killed leaves behind.

    The last close of a block device writes its dirty pages out: so dirty data needs an opener,
    and when the paths are down that opener is one that hangs in its close.
    """

    def __init__(self, device: str, data: bytes, offset: int = 0) -> None:
        self._to_close, self._close = os.pipe()
        self._ended = False
        ready, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _write_and_hold(device, data, offset, tell, self._to_close)
        os.close(tell)
        os.close(self._to_close)
        answer = os.read(ready, 1)
        os.close(ready)
        if answer != b"w":
            raise AssertionError(f"the writer could not write to {device}")

    def close(self) -> None:
        """Let it close the device; it hangs there while the data cannot be written."""
        os.write(self._close, b"c")

    def kill(self) -> None:
        """Kill it: its device is closed by the kernel, and that may hang in its place."""
        _kill(self.pid)

    def ended(self) -> bool:
        """Whether it is gone."""
        if not self._ended:
            self._ended = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return self._ended


def _write_and_hold(device: str, data: bytes, offset: int, tell: int, wait: int) -> None:
    try:
        handle = os.open(device, os.O_RDWR)
        os.pwrite(handle, data, offset)
        os.write(tell, b"w")
        os.close(tell)
        os.read(wait, 1)
        os.close(handle)
    finally:
        os._exit(0)


def run_and_kill(call: Callable[[], object], when: Callable[[], object], limit_s: float) -> bool:
    """Run ``call`` in a process of its own and kill -9 that as soon as ``when`` is true.

    :return: True if it was killed, False if the call had ended before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call()
            code = 0
        finally:
            os._exit(code)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            return False
        if when():
            _kill(pid)
            os.waitpid(pid, 0)
            return True
        time.sleep(0.002)
    _kill(pid)
    os.waitpid(pid, 0)
    raise kernel.NotSeen(f"the step at which to kill was not reached within {limit_s} s")


def suspend(map_name: str) -> None:
    """Suspend a device-mapper map: all I/O to it waits."""
    kernel.run("dmsetup", "suspend", "--nolockfs", "--noflush", map_name)


def resume(map_name: str) -> None:
    """End ``suspend``."""
    kernel.run("dmsetup", "resume", map_name)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def background(*command: str) -> subprocess.Popen[bytes]:
    """Start a program of the lab's own that goes on while the scenario does."""
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
