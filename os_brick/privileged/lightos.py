# SPDX-License-Identifier: Apache-2.0
"""The files by which LightOS's discovery client on this host is told what to connect, as root."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat

from os_brick import privileged
from os_brick.privileged import guarded

_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_FILE = re.compile(rf"/(?:[^/\0\n]+/)+{_UUID}\.conf")
# A comment, or the way to one node: transport, address, port, host NQN, subsystem NQN.
_LINE = re.compile(r"#[^\n]*|-t [a-z]+ -a [0-9A-Za-z.:%_-]+ -s \d{1,5} -q [^\s,]+ -n [^\s,]+")


@privileged.default.entrypoint
def write_dsc_file(file_name: str, text: str) -> None:
    """Have the discovery client find a file, whole or not at all.

    It is made beside the client's directory, for all to read, and renamed: the client reads a file
    as soon as it is there.

    :param file_name: absolute path, ``…/<uuid>.conf``.
    :param text: lines as the client reads them.
    :raises OSError: it is not there; nor is anything of it.
    """
    guarded.checked(_FILE, file_name, "file of the discovery client")
    for line in text.splitlines():
        guarded.checked(_LINE, line, "line for the discovery client")
    folder, name = os.path.split(file_name)
    try:
        _write_and_rename(os.path.dirname(folder), name, file_name, text)
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.EROFS):
            raise
        # The client's directory is a mount of its own, as in a container.
        _write_and_rename(folder, name, file_name, text)


def _write_and_rename(folder: str, name: str, file_name: str, text: str) -> None:
    temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.rename(temporary, file_name)
    except BaseException:
        os.unlink(temporary)
        raise


@privileged.default.entrypoint
def move_dsc_file(src: str, dst: str) -> str:
    """Move a file of the service's to where the discovery client finds it.

    For callers outside of this library, which uses :func:`write_dsc_file`.

    :param src: absolute path of an ordinary file.
    :param dst: absolute path, ``…/<uuid>.conf``.
    :returns: ``dst``.
    :raises OSError: it could not be moved.
    """
    guarded.checked(_FILE, dst, "file of the discovery client")
    if not os.path.isabs(src) or not stat.S_ISREG(os.lstat(src).st_mode):
        raise ValueError(f"{src!r} is not the absolute path of an ordinary file")
    return shutil.move(src, dst)


@privileged.default.entrypoint
def delete_dsc_file(file_name: str) -> None:
    """Have the discovery client find a file no more; one that is not there is no error.

    :param file_name: absolute path, ``…/<uuid>.conf``.
    :raises OSError: it is still there.
    """
    try:
        os.unlink(guarded.checked(_FILE, file_name, "file of the discovery client"))
    except FileNotFoundError:
        pass
