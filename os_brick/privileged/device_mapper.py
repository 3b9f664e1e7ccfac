# SPDX-License-Identifier: Apache-2.0
"""What only root may ask the device mapper."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from os_brick import privileged

_CONTROL = "/dev/mapper/control"
# struct dm_ioctl of linux/dm-ioctl.h: version[3], data_size, data_start, target_count, open_count,
# flags, event_nr, padding, dev, name[128], uuid[129], data[7].
_HEADER = struct.Struct("3I I I I i I I I Q 128s 129s 7s")
_OPEN_COUNT_FIELD = 6
_VERSION = (4, 0, 0)
# _IOWR(0xfd, 7, struct dm_ioctl)
_DM_DEV_STATUS = 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | 7


@privileged.default.entrypoint
def open_count(label: str) -> int | None:
    """Return how often a mapping is open: by programs, mounts and other mappings.

    :param label: its name (``dm/name`` in sysfs).
    :returns: None if there is no such mapping.
    :raises OSError: the device mapper could not be asked.
    """
    name = label.encode()
    if not 0 < len(name) < 128:
        raise ValueError(f"mapping: {label!r} is not valid here")
    request = bytearray(
        _HEADER.pack(*_VERSION, _HEADER.size, _HEADER.size, 0, 0, 0, 0, 0, 0, name, b"", b"")
    )
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, _DM_DEV_STATUS, request)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return None
        raise
    finally:
        os.close(control)
    count: int = _HEADER.unpack(request)[_OPEN_COUNT_FIELD]
    return count
