# SPDX-License-Identifier: Apache-2.0
"""The few things the lab asks of the kernel: modules, files, and waiting for what they show."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class NotSeen(AssertionError):
    """Something did not happen within its limit."""


def load(*modules: str) -> None:
    """Load kernel modules."""
    run("modprobe", "-a", *modules)


def run(*command: str, limit_s: float = 60, check: bool = True, stdin: str = "") -> str:
    """Run one program of the lab's own (not the library's); return what it printed.

    :raises AssertionError: its exit code was not 0 and ``check`` is set, or its time was over.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, err = process.communicate(stdin, timeout=limit_s)
    except subprocess.TimeoutExpired:
        # Not waited for: what hangs in the kernel does not die of it.
        process.kill()
        raise NotSeen(f"{' '.join(command)} did not end within {limit_s} s") from None
    if check and process.returncode:
        text = (out + err).strip()
        raise AssertionError(f"{' '.join(command)} ended with {process.returncode}: {text}")
    return out + err


def write(path: str | pathlib.Path, text: str) -> None:
    """Write one value to a file of sysfs, configfs or tracefs in one write call.

    Buffered files hide the first error and ``open`` in append mode seeks, which tracefs refuses.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def read(path: str | pathlib.Path, default: str = "") -> str:
    """Return a small file's text without the spaces around it, ``default`` if it is not there."""
    try:
        return pathlib.Path(path).read_text(errors="replace").strip()
    except OSError:
        return default


def names(folder: str | pathlib.Path) -> list[str]:
    """Return what is in a folder, sorted; nothing if there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


#: Limits say what something takes on a machine that does nothing else; a busy one gets longer.
PATIENCE = 4.0


def wait_for(probe: Callable[[], _T], what: str, limit_s: float = 60) -> _T:
    """Return the first true answer of ``probe``.

    :param limit_s: how long it takes at most on a machine that does nothing else. A busy one gets
        longer: what is waited for here is to come, how fast is not the question.
    :raises NotSeen: there was none; the text is ``what``.
    """
    end = time.monotonic() + limit_s * PATIENCE
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise NotSeen(f"not seen within {limit_s} s: {what}")
        time.sleep(0.02)
