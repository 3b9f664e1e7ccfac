# SPDX-License-Identifier: Apache-2.0
"""A contender as the runner sees it: a process that takes orders, each within a limit."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import time
from typing import Any

from ..guest import kernel, lab, programs

#: Importing a library from the host's file system takes its time under emulation.
_START_LIMIT_S = 180.0
#: Folder above the package ``functional``, which the workers are started by.
_TESTS = pathlib.Path(__file__).resolve().parents[2]
_OURS = _TESTS.parents[1]


class Failed(Exception):
    """A contender did not answer: it died, or its time was over and it was killed."""


class Contender:
    """One worker process; started when it is made, ``ready`` waits for it.

    :param python: the interpreter, which decides which library it is.
    :param ours: whether this checkout's library is put before all others.
    """

    def __init__(self, name: str, python: str, *, ours: bool) -> None:
        self.name = name
        #: Version and file of the library, once it is ready.
        self.about: dict[str, Any] = {}
        #: Protocols it has attached by before, with several paths or one: the first time loads
        #: code.
        self.warm: set[tuple[str, bool]] = set()
        self._python = python
        self._path = os.pathsep.join([str(_TESTS), str(_OURS)] if ours else [str(_TESTS)])
        self._rest = b""
        self._start()

    def _start(self) -> None:
        lab.LOGS.mkdir(exist_ok=True)
        log = str(lab.LOGS / f"bench-{self.name}")
        with open(f"{log}.out", "ab") as out:
            self._process = subprocess.Popen(
                [self._python, "-m", "functional.bench.worker", self.name, f"{log}.log"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                cwd="/",
                env=os.environ | {"PYTHONPATH": self._path},
                start_new_session=True,
            )
        self._rest = b""
        self.about = {}
        self.warm = set()

    def ready(self) -> dict[str, Any]:
        """Return version and file of the library when it is loaded."""
        if not self.about:
            self.about = self._answer(_START_LIMIT_S)
        return self.about

    def ask(
        self, do: str, volumes: list[tuple[str, dict[str, Any]]], limit_s: float
    ) -> dict[str, Any]:
        """Have the volumes attached or detached; return the answer with ``programs`` in it.

        :raises Failed: no answer within ``limit_s`` seconds; it is killed and started anew.
        """
        self.ready()
        assert self._process.stdin is not None
        with programs.counted(self._process.pid, self._threads()) as started:
            line = json.dumps({"do": do, "volumes": volumes}) + "\n"
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()
            answer = self._answer(limit_s)
        answer["programs"] = [str(each) for each in started]
        return answer

    def end(self) -> None:
        """Kill it and all it has started that stayed in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _threads(self) -> tuple[int, ...]:
        return tuple(int(tid) for tid in kernel.names(f"/proc/{self._process.pid}/task"))

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        end = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            readable = left > 0 and select.select([pipe], [], [], left)[0]
            piece = os.read(pipe, 1 << 16) if readable else b""
            if not piece:
                self._again("it died" if readable else f"no answer within {limit_s:.0f} s")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _again(self, why: str) -> None:
        said = kernel.read(lab.LOGS / f"bench-{self.name}.out")[-1000:]
        self.end()
        self._start()
        raise Failed(f"{self.name}: {why}\n{said}")
