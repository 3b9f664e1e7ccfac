# SPDX-License-Identifier: Apache-2.0
"""Commands for the machine: orders go over a serial line, output comes back by files.

A job is a folder ``jobs/N`` in the folder that host and guest share: ``run`` (the script),
``out`` (what it printed, growing), ``rc`` (its exit code, put there whole at its end).
The serial line only says which job to start or end, so nothing polls inside the guest.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import socket
import sys
import time
from collections.abc import Callable

from . import qemu
from .settings import LabError, Settings

#: Exit code of a command that was ended because its time was over (as of timeout(1)).
TIMED_OUT = 124
#: Exit code when the machine itself went away.
MACHINE_GONE = 125
#: Exit code when a job in it that counts (``Heart``) stopped counting.
JOB_HUNG = 126
_LOOK_EVERY_S = 0.03

#: Runs in the guest, from init: starts and ends jobs as the serial line orders.
AGENT = r"""
exec 3<>/dev/ttyS1
stty raw -echo <&3
cd /
: >/lab/ready
while read -r verb job <&3; do
    case "$verb" in
    run)
        setsid sh -c 'echo $$ >"/lab/jobs/$1/pid"
            sh "/lab/jobs/$1/run" >"/lab/jobs/$1/out" 2>&1 </dev/null
            echo $? >"/lab/jobs/$1/rc.new"
            mv "/lab/jobs/$1/rc.new" "/lab/jobs/$1/rc"' job "$job" 3>&- & ;;
    end)
        kill -KILL -- "-$(cat "/lab/jobs/$job/pid")" ;;
    esac
done
"""


class Channel:
    """Runs commands in the machine that is up."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(
        self,
        script: str,
        limit_s: float,
        show: Callable[[bytes], None] | None = None,
        heart: Heart | None = None,
    ) -> tuple[int, bytes]:
        """Run a shell script as root in the guest; return its exit code and its output.

        :param limit_s: seconds after which it and all of its session are killed; the
            code is then 124.  Code 125: the machine ended meanwhile.
        :param show: called with each new piece of output as it comes.
        :param heart: where the job counts while it goes on; if it stops counting, it is given up:
            the code is 126.
        """
        job = self._new_job(script)
        self._order(f"run {job.name}")
        end = time.monotonic() + limit_s
        seen = 0
        while True:
            done = (job / "rc").exists()
            seen += _show_from(job / "out", seen, show)
            if done:
                return int((job / "rc").read_text()), _content(job / "out")
            if heart and heart.stands_still():
                return JOB_HUNG, _content(job / "out")
            if qemu.running_pid(self._settings) is None:
                return MACHINE_GONE, _content(job / "out")
            if time.monotonic() > end:
                self._order(f"end {job.name}")
                return TIMED_OUT, _content(job / "out")
            time.sleep(_LOOK_EVERY_S)

    def _new_job(self, script: str) -> pathlib.Path:
        jobs = self._settings.share / "jobs"
        jobs.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(job.name) for job in jobs.iterdir()), default=0)
        while True:
            job = jobs / str(number)
            try:
                job.mkdir()
                break
            except FileExistsError:
                number += 1
        (job / "run").write_text(script + "\n")
        return job

    def _order(self, line: str) -> None:
        path = self._settings.machine / "control.sock"
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(10)
            try:
                # The folder's path may be longer than a socket's name can be.
                with _inside(path.parent):
                    wire.connect(path.name)
                wire.sendall(line.encode() + b"\n")
            except OSError as error:
                advice = "'tools/lab down', then 'up'"
                raise LabError(f"the machine takes no orders ({error}): {advice}") from error


class Heart:
    """A file in which a job counts.

    :param limit_s: how long it may stand still, on the host's clock.
    """

    def __init__(self, file: pathlib.Path, limit_s: float) -> None:
        file.unlink(missing_ok=True)
        self._file = file
        self._limit_s = limit_s
        self._seen = b""
        self._since = time.monotonic()

    def stands_still(self) -> bool:
        """Tell whether it has not changed for too long; it is to be asked again and again."""
        now, found = time.monotonic(), _content(self._file)
        if found != self._seen:
            self._seen, self._since = found, now
        return now - self._since > self._limit_s


def script_of(words: list[str]) -> str:
    """Return the shell script for the words of a command line; one word is a script itself."""
    return words[0] if len(words) == 1 else shlex.join(words)


def to_stdout(piece: bytes) -> None:
    """Show a piece of a job's output at once."""
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


class _inside:
    """A ``with`` block in another working folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._before = os.getcwd()
        os.chdir(self._folder)

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)


def _content(path: pathlib.Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _show_from(path: pathlib.Path, seen: int, show: Callable[[bytes], None] | None) -> int:
    if show is None or not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(seen)
        piece = file.read()
    if piece:
        show(piece)
    return len(piece)
