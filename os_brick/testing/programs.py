# SPDX-License-Identifier: Apache-2.0
"""The execute function of a fake host: programs by name, with the contract of the library's own."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Collection
from typing import Any

from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.linux.scsi import Hctl
from os_brick.testing import block, clock
from os_brick.testing.block import BlockDevice, Devices
from os_brick.testing.process import Answer, Process, TimeIsUpError
from os_brick.testing.scsi import Disk, ScsiLayer
from os_brick.testing.world import World
from os_brick.testing.zfcp import Zfcp

Program = Callable[[Process], Answer]
# What execute functions take (services' own too); the rest would not reach a real one.
_KEYWORDS = frozenset(
    {
        "run_as_root",
        "root_helper",
        "check_exit_code",
        "process_input",
        "attempts",
        "delay_on_retry",
        "interval",
        "backoff_rate",
        "timeout",
        "signal",
        "raise_timeout",
        "on_execute",
        "on_completion",
        "shell",
        "env_variables",
        "cwd",
        "log_errors",
        "loglevel",
        "binary",
        "prlimit",
    }
)
_DEFAULT_LIMIT_S = 600.0
_ZFCP = "bus/ccw/drivers/zfcp/"
#: These act by themselves and take the host's lock only for moments, as they may wait long.
_UNLOCKED = frozenset({"tee", "sync", "dd", "scsi_id"})


class Programs:
    """All programs of the host."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._programs: dict[str, Program] = {}
        #: Every command that was started, in order, its words as they were given.
        self.started: list[tuple[str, ...]] = []

    def install(self, name: str, program: Program) -> None:
        """Put a program on the host; its name is without directories."""
        self._programs[name] = program

    def uninstall(self, name: str) -> None:
        """Take a program away, as on a host where its package is missing."""
        self._programs.pop(name, None)

    def execute(self, *words: str, **keywords: Any) -> tuple[str, str]:
        """Run a program as root, as an execute function does.

        :returns: (stdout, stderr).
        :raises ProcessExecutionError: for an exit code that is not accepted.
        :raises os_brick.exception.ExecutionTimeout: if it was stopped at its time limit.
        :raises FileNotFoundError: if it is not installed (a fault).
        """
        self._check(words, keywords)
        with self._world.lock:
            self.started.append(words)
            self._world.journal.append(" ".join(words))
        limit_s = keywords.get("timeout", _DEFAULT_LIMIT_S) or clock.FOREVER_S
        process = Process(self._world, words, keywords.get("process_input") or "", float(limit_s))
        shown = " ".join(words[:4])
        try:
            answer = self._run(process)
        except TimeIsUpError:
            if limit_s >= clock.FOREVER_S:
                self._complain(f"a program without a time limit never ended: {shown}")
            said = f"Time out on proc 4711 after waiting {limit_s} seconds when running {shown}"
            raise exception.ExecutionTimeout(
                stdout="", stderr=said, exit_code=None, cmd=shown
            ) from None
        if not _accepted(answer.code, keywords.get("check_exit_code", True)):
            raise processutils.ProcessExecutionError(
                stdout=answer.out, stderr=answer.err, exit_code=answer.code, cmd=shown
            )
        return answer.out, answer.err

    def ask(self, words: tuple[str, ...], limit_s: float) -> Answer:
        """Return what a program would answer, as by asking its daemon: none is started.

        :raises TimeoutError: there was no answer in time.
        """
        try:
            return self._run(Process(self._world, words, "", limit_s))
        except TimeIsUpError:
            raise TimeoutError(f"{words[0]} does not answer") from None

    def _check(self, words: tuple[str, ...], keywords: dict[str, Any]) -> None:
        if not words or not all(isinstance(word, str) for word in words):
            self._complain(f"a command must be words of text: {words!r}")
        unknown = set(keywords) - _KEYWORDS
        if unknown:
            self._complain(f"{words[0]}: execute functions do not know {sorted(unknown)}")

    def _complain(self, text: str) -> None:
        self._world.complaints.append(text)
        raise AssertionError(text)

    def _run(self, process: Process) -> Answer:
        process.spend(self._world.delays.program_s)
        out = err = ""
        code = None
        for fault in self._world.faults.of_command(process.words):
            out, err = out + fault.out, err + fault.err
            if fault.missing:
                missing = errno.ENOENT
                raise FileNotFoundError(missing, os.strerror(missing), process.words[0])
            if fault.hangs:
                process.spend(clock.FOREVER_S * 2)
            process.spend(fault.seconds)
            if not fault.acts:
                return Answer(fault.code or 0, out, err)
            code = fault.code if code is None else code
        answer = self._act(process)
        return Answer(answer.code if code is None else code, out + answer.out, err + answer.err)

    def _act(self, process: Process) -> Answer:
        name = posixpath.basename(process.words[0])
        program = self._find(name, process)
        try:
            if name in _UNLOCKED:
                return program(process)
            with self._world.lock:
                return program(process)
        except AssertionError as exc:
            self._world.complaints.append(str(exc))
            raise
        finally:
            self._world.notify()

    def call(self, name: str, process: Process) -> Answer:
        """Run a program in place of the one that runs, as ``env`` does."""
        return self._find(name, process)(process)

    def _find(self, name: str, process: Process) -> Program:
        program = self._programs.get(name)
        if program is None:
            self._complain(
                f"this fake has no program {name!r} (run as: {' '.join(process.words[:6])})"
            )
            raise AssertionError("unreachable")
        return program


def _accepted(code: int, check: bool | int | Collection[int]) -> bool:
    if isinstance(check, bool):
        return code == 0 if check else True
    return code == check if isinstance(check, int) else code in check


class Coreutils:
    """Small programs that act on files and block devices."""

    def __init__(self, world: World, devices: Devices, scsi: ScsiLayer, zfcp: Zfcp) -> None:
        self._world = world
        self._devices = devices
        self._scsi = scsi
        self._zfcp = zfcp
        #: Files that ``cat`` knows, by path.
        self.files: dict[str, str] = {}
        #: By directory below ``/sys``, who takes what is written there: name, text and time limit.
        self.writers: dict[str, Callable[[str, str, float], None]] = {}

    def programs(self) -> dict[str, Program]:
        """Return the programs by name."""
        return {
            "cat": self.cat,
            "tee": self.tee,
            "sync": self.sync,
            "ln": self.ln,
            "rm": self.rm,
            "dd": self.dd,
            "scsi_id": self.scsi_id,
            "blockdev": self.blockdev,
        }

    def _device(self, path: str) -> BlockDevice | None:
        return self._devices.find(path)

    def cat(self, process: Process) -> Answer:
        """``cat FILE``"""
        path = process.words[1]
        if path not in self.files:
            return Answer(1, err=f"cat: {path}: No such file or directory\n")
        return Answer(out=self.files[path])

    def tee(self, process: Process) -> Answer:
        """``tee -a FILE`` below ``/sys``."""
        path = process.words[-1]
        for root in (self._world.sys.root, "/sys"):
            if path.startswith(f"{root}/"):
                path = path[len(root) + 1 :]
        parts = path.split("/")
        try:
            if parts[0] == "class" and parts[1] == "scsi_host":
                self._scsi.write_scan(
                    int(parts[2].removeprefix("host")), process.stdin, process.left_s
                )
                return Answer(out=process.stdin)
            if path.startswith(_ZFCP):
                self._zfcp.write(path.removeprefix(_ZFCP), process.stdin, process.left_s)
                return Answer(out=process.stdin)
            for folder, write in self.writers.items():
                if path.startswith(folder):
                    write(path.removeprefix(folder), process.stdin, process.left_s)
                    return Answer(out=process.stdin)
            device = self._scsi_device(parts)
            if device is None:
                return Answer(1, err=f"tee: {path}: No such file or directory\n")
            self._scsi.write_attribute(device, parts[-1], process.stdin, process.left_s)
        except TimeoutError:
            raise TimeIsUpError from None
        except OSError as exc:
            return Answer(1, err=f"tee: {path}: {exc.strerror}\n")
        return Answer(out=process.stdin)

    def _scsi_device(self, parts: list[str]) -> Any:
        if parts[-1] not in ("delete", "rescan", "state"):
            raise AssertionError(f"tee: this fake does not know the file {'/'.join(parts)}")
        with self._world.lock:
            for part in parts:
                hctl = Hctl.parse(part)
                if hctl is not None:
                    return self._scsi.find(hctl)
            if parts[0] == "block":
                disk = self._device(f"/dev/{parts[1]}")
                return disk.device if isinstance(disk, Disk) else None
        return None

    def sync(self, process: Process) -> Answer:
        """``sync DEVICE``: an fsync whose error is the exit code."""
        path = process.words[-1]
        if len(process.words) < 2 or path.startswith("-"):
            raise AssertionError("sync without a device would write out the whole machine")
        with self._world.lock:
            device = self._device(path)
        if device is None:
            return Answer(1, err=f"sync: error opening '{path}': No such file or directory\n")
        opening = self._devices.open(path)
        state = ""

        def written() -> bool:
            nonlocal state
            state = self._devices.fsync(device)
            return state != block.HANGS

        try:
            process.wait_for(written)
        except TimeIsUpError:
            # Stopped, but it sleeps uninterruptibly: it keeps the device open until its I/O ends.
            self._world.record("sync", device.name, block.HANGS)
            self._world.watch(lambda: written() and self._devices.forget(opening))
            raise
        self._world.record("sync", device.name, state)
        with self._world.lock:
            self._devices.forget(opening)
        if state == block.FAILS:
            return Answer(1, err=f"sync: error syncing '{path}': Input/output error\n")
        return Answer()

    def ln(self, process: Process) -> Answer:
        """``ln -sfn TARGET LINK`` below ``/dev``."""
        self.link(process.words[-2], process.words[-1])
        return Answer()

    def link(self, target: str, link_name: str) -> None:
        """Make a link below ``/dev`` that leads inside the folder but keeps its text."""
        self._world.record("link", link_name, target)
        name, leads_to = (self._below_dev(one) for one in (link_name, target))
        self._world.dev.link(name, leads_to)
        self._world.devfs.absolute_links[self._world.dev.path(name)] = target

    def _below_dev(self, path: str) -> str:
        for root in (self._world.dev.root, "/dev"):
            if path.startswith(f"{root}/"):
                return path[len(root) + 1 :]
        raise AssertionError(f"{path} is not below /dev")

    def rm(self, process: Process) -> Answer:
        """``rm -f FILE…``: links below ``/dev``, files below ``/run``."""
        for path in [word for word in process.words[1:] if not word.startswith("-")]:
            if path.startswith("/run/"):
                self._world.run.remove(path.removeprefix("/run/"))
            else:
                self.unlink(path)
        return Answer()

    def unlink(self, *links: str) -> None:
        """Remove links below ``/dev``; anything else there is a mistake."""
        for link in links:
            path = self._world.dev.path(self._below_dev(link))
            if os.path.lexists(path) and not os.path.islink(path):
                raise AssertionError(f"{link} is a device node, not a link")
            self._world.record("unlink", link)
            if os.path.lexists(path):
                os.unlink(path)
            self._world.devfs.absolute_links.pop(path, None)

    def dd(self, process: Process) -> Answer:
        """``dd if=DEVICE of=/dev/null count=1``: a read; of the content, only a LUKS header's magic
        is printed."""
        words = dict(word.partition("=")[::2] for word in process.words[1:])
        device = self._device(words["if"])
        if device is None:
            return Answer(1, err=f"dd: failed to open '{words['if']}': No such file or directory\n")
        process.wait_for(lambda: device.storage()[0] != block.HANGS)
        state, unit = device.storage()
        if state != block.ALIVE or unit is None:
            return Answer(1, err=f"dd: error reading '{words['if']}': Input/output error\n")
        read = "LUKS" if unit.luks is not None and "of" not in words else ""
        return Answer(out=read, err="1+0 records in\n1+0 records out\n")

    def scsi_id(self, process: Process) -> Answer:
        """``scsi_id --page 0x83|0x80 --whitelisted DEVICE``: asks the device itself."""
        device = self._device(process.words[-1])
        if device is None:
            return Answer(1)
        process.wait_for(lambda: device.storage()[0] != block.HANGS)
        state, unit = device.storage()
        if state != block.ALIVE or unit is None:
            return Answer(1)
        if "0x80" in process.words:
            return Answer(out=f"S{unit.vendor:<8}{unit.model:<16}{unit.serial}\n")
        return Answer(out=f"{unit.wwid}\n") if unit.wwid else Answer(1)

    def blockdev(self, process: Process) -> Answer:
        """``blockdev --getsize64 | --flushbufs DEVICE``."""
        device = self._device(process.words[-1])
        if device is None:
            return Answer(
                1, err=f"blockdev: cannot open {process.words[-1]}: No such file or directory\n"
            )
        option = process.words[1]
        if option == "--getsize64":
            return Answer(out=f"{device.size}\n")
        if option == "--flushbufs":
            if device.dirty:
                process.unlocked_wait(lambda: self._devices.fsync(device) != block.HANGS)
            return Answer()  # whatever came of it: BLKFLSBUF reports no error
        raise AssertionError(f"blockdev: this fake does not know {option}")
