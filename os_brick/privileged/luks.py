# SPDX-License-Identifier: Apache-2.0
"""Looking for a LUKS header as root."""

from __future__ import annotations

import errno
import mmap
import os
import re
import stat

from os_brick import privileged
from os_brick.privileged import guarded

_DEVICE = re.compile(r"[a-zA-Z0-9_-]{1,31}", re.ASCII)
_NUMBER = re.compile(r"\d{1,10}:\d{1,10}", re.ASCII)
_CHUNK = 1 << 20
_LONGEST = 64 << 20
# LUKS1 On-Disk Format Specification 1.2.3 and LUKS2 On-Disk Format 1.1: the magic of the header,
# that of LUKS2's second one, and where that may be.
_MAGIC = b"LUKS\xba\xbe"
_SECOND_MAGIC = b"SKUL\xba\xbe"
_SECOND_PLACES = tuple(0x4000 << shift for shift in range(9))


@privileged.default.entrypoint
def holds_header(name: str, number: str, length: int, limit_s: float) -> bool:
    """Read the start of a device from the storage and tell whether a LUKS header is in it.

    A damaged one counts: its magic is enough, and so is that of LUKS2's second header.

    :param name: kernel name of the device, ``"dm-3"``.
    :param number: its number, ``"253:3"``.
    :param length: how many bytes have to be readable; a smaller device is read whole.
    :raises TimeoutError: it was not read within ``limit_s`` seconds.
    :raises OSError: it cannot be read, or is not that very device any more.
    """
    guarded.checked(_DEVICE, name, "device")
    guarded.checked(_NUMBER, number, "device number")
    if not 0 < length <= _LONGEST:
        raise ValueError(f"length: {length!r} is not valid here")
    path = f"/dev/{name}"
    what = f"the read of {path}"
    return bool(guarded.within(limit_s, lambda: _holds_header(path, number, length), what))


def _holds_header(path: str, number: str, length: int) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        found = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        if not stat.S_ISBLK(status.st_mode) or found != number:
            raise OSError(errno.ENODEV, f"{path} is another device now")
        start = _read(fd, length)
    finally:
        os.close(fd)
    if not start:
        raise OSError(errno.EIO, f"{path} has no data")
    return has_magic(start)


def has_magic(start: bytes) -> bool:
    """Tell whether the start of a device holds the magic of a LUKS header, the first or second."""
    return start.startswith(_MAGIC) or any(
        start.startswith(_SECOND_MAGIC, place) for place in _SECOND_PLACES
    )


def _read(fd: int, length: int) -> bytes:
    """Return the first bytes of a device, past the page cache: fewer where it ends."""
    # Direct I/O wants whole blocks in aligned memory: anonymous memory is.
    parts: list[bytes] = []
    done = 0
    with mmap.mmap(-1, _CHUNK) as buffer:
        while done < length:
            count = os.preadv(fd, [buffer], done)
            if count == 0:
                break
            parts.append(buffer[:count])
            done += count
    return b"".join(parts)
