# SPDX-License-Identifier: Apache-2.0
"""Which programs a process and all its descendants start, seen by the kernel's tracer.

The privileged helper's programs are included if the helper is a descendant, or is named.
Source: Documentation/trace/events.rst and kprobetrace.rst of the kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator

from . import kernel

TRACING = pathlib.Path("/sys/kernel/tracing")
_INSTANCE = "lab"
_WORDS = 14
#: argv of execve: struct pt_regs of x86-64 has ``si`` at offset 104; each pointer has 8 bytes.
_PROBE = "p:lab/argv __x64_sys_execve " + " ".join(
    f"w{number}=+u0(+u{8 * number}(+104(%di))):ustring" for number in range(_WORDS)
)
_LINE = re.compile(
    r"^\s*(?P<comm>.+)-(?P<pid>\d+)\s+\[\d+\].*?(?P<time>[\d.]+): (?P<event>\w+): (?P<rest>.*)$"
)
_WORD = re.compile(r'^ w\d+="((?:[^"\\]|\\.)*)"')


@dataclasses.dataclass(frozen=True)
class Program:
    """One program that was started."""

    pid: int
    #: What was executed, as the kernel resolved it.
    file: str
    #: Its arguments, the program's own name first; cut after 14, empty if they could not be read.
    argv: tuple[str, ...]
    #: Seconds on the kernel's monotonic clock.
    at: float

    @property
    def name(self) -> str:
        """The program's name without its folder."""
        return os.path.basename(self.file)

    def __str__(self) -> str:
        return " ".join(self.argv) or self.file


@contextlib.contextmanager
def counted(root: int | None = None, also: tuple[int, ...] = ()) -> Iterator[list[Program]]:
    """Count the programs started by a process tree during the ``with`` block.

    The list is filled when the block ends.

    :param root: pid at the tree's top; this process by default.
    :param also: further pids that belong to the tree, such as a helper started earlier.
    """
    found: list[Program] = []
    instance = _begin()
    try:
        yield found
    finally:
        kernel.write(instance / "tracing_on", "0")
        text = (instance / "trace").read_text(errors="replace")
        _end(instance)
        found += started(text, {root or os.getpid(), *also})


def _begin() -> pathlib.Path:
    instance = TRACING / "instances" / _INSTANCE
    if instance.exists():
        _end(instance)
    instance.mkdir()
    kernel.write(instance / "trace_clock", "mono")
    kernel.write(instance / "buffer_size_kb", "4096")
    kernel.write(TRACING / "kprobe_events", _PROBE)
    for event in (
        "sched/sched_process_fork",
        "sched/sched_process_exec",
        "sched/sched_process_exit",
        "lab/argv",
    ):
        kernel.write(instance / "events" / event / "enable", "1")
    kernel.write(instance / "tracing_on", "1")
    return instance


def _end(instance: pathlib.Path) -> None:
    for event in ("lab/argv", "sched"):
        switch = instance / "events" / event / "enable"
        if switch.exists():
            kernel.write(switch, "0")
    instance.rmdir()
    if "lab/argv" in kernel.read(TRACING / "kprobe_events"):
        kernel.write(TRACING / "kprobe_events", "-:lab/argv")


def started(trace: str, roots: set[int]) -> list[Program]:
    """Return the programs that the tree above ``roots`` started, in their order (pure)."""
    tree = set(roots)
    argv: dict[int, tuple[str, ...]] = {}
    found = []
    for line in trace.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        pid, rest = int(match["pid"]), match["rest"]
        if match["event"] == "sched_process_fork":
            child = re.search(r"child_pid=(\d+)", rest)
            if pid in tree and child is not None:
                tree.add(int(child[1]))
        elif match["event"] == "argv":
            argv[pid] = _parse_argv(rest)
        elif match["event"] == "sched_process_exec" and pid in tree:
            file = re.search(r"filename=(\S+)", rest)
            name = file[1] if file else "?"
            found.append(Program(pid, name, argv.pop(pid, ()), float(match["time"])))
        elif match["event"] == "sched_process_exit":
            tree -= {pid} - roots
    return found


def _parse_argv(text: str) -> tuple[str, ...]:
    """Return the words up to argv's closing null, which the probe shows as a fault.

    What follows in memory is the environment: it is none of the arguments.
    """
    words = []
    rest = text[text.index(" w0=") :] if " w0=" in text else ""
    while match := _WORD.match(rest):
        words.append(match[1])
        rest = rest[match.end() :]
    return tuple(words)
