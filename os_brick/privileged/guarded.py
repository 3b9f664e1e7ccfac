# SPDX-License-Identifier: Apache-2.0
"""What the privileged verbs have in common: checked arguments, writes, and a limit that holds."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable
from typing import Any

#: What the kernel answers about something that is not there any more.
GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})


def checked(pattern: re.Pattern[str], value: Any, what: str) -> str:
    """Return an argument that fits its pattern whole.

    :raises ValueError: it does not.
    """
    if not isinstance(value, str) or not pattern.fullmatch(value) or ".." in value:
        raise ValueError(f"{what}: {value!r} is not valid here")
    return value


def write(fd: int, text: str) -> None:
    """Write a text to an open file in one go, and close it.

    :raises OSError: what the kernel answered.
    """
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def write_file(path: str, text: str, limit_s: float) -> None:
    """Write a text to a file of sysfs.

    :raises TimeoutError: when the kernel had not finished after ``limit_s`` seconds (it goes on).
    :raises OSError: what the kernel answered.
    """
    within(limit_s, lambda: write(os.open(path, os.O_WRONLY | os.O_CLOEXEC), text), path)


def write_of(directory: str, instance: int, attribute: str, text: str, limit_s: float) -> bool:
    """Write a text to an attribute of one very device or controller.

    :param directory: its directory in sysfs.
    :param instance: inode number of that directory: one that came later under the name is left
        alone.
    :returns: False if it is gone.
    :raises TimeoutError: when the kernel had not finished after ``limit_s`` seconds (it goes on).
    :raises OSError: what the kernel answered.
    """

    def change() -> bool:
        try:
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno in GONE:
                return False
            raise
        try:
            # Held open, the directory is this device's for as long as we need it: a name is not.
            if os.fstat(folder).st_ino != instance:
                return False
            write(os.open(attribute, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder), text)
        except OSError as exc:
            if exc.errno in GONE:
                return False
            raise
        finally:
            os.close(folder)
        return True

    return bool(within(limit_s, change, f"{directory}/{attribute}"))


def within(limit_s: float, action: Callable[[], Any], what: str) -> Any:
    """Run an action in a thread of its own and return its answer; let go of it at the limit.

    :raises TimeoutError: it had not ended by then; it goes on.
    """
    answer: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(action())
        except BaseException as exc:  # noqa: BLE001 - handed to the caller below, whatever it is
            failure.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if failure:
        raise failure[0]
    if not answer:
        raise TimeoutError(
            errno.ETIMEDOUT, f"the kernel has not finished {what} within {limit_s:.0f} s"
        )
    return answer[0]
