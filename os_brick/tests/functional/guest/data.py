# SPDX-License-Identifier: Apache-2.0
"""Reading and writing block devices, past the page cache where it would hide the truth."""

from __future__ import annotations

import hashlib
import mmap
import os

BLOCK = 4096


def pattern(name: str, length: int) -> bytes:
    """Return ``length`` bytes that only this name has."""
    unit = b"".join(hashlib.sha256(f"{name}/{n}".encode()).digest() for n in range(128))
    return (unit * (length // len(unit) + 1))[:length]


def write(path: str, data: bytes, offset: int = 0) -> None:
    """Write to a device and wait until the storage has it."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.pwrite(handle, data, offset)
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: str, length: int, offset: int = 0) -> bytes:
    """Read from the storage itself, not from the page cache; whole blocks of 4096 bytes."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, length) as buffer:
            done = 0
            while done < length:
                count = os.preadv(handle, [memoryview(buffer)[done:]], offset + done)
                if count == 0:
                    break
                done += count
            return bytes(buffer[:done])
    finally:
        os.close(handle)


def size(path: str) -> int:
    """Return a device's size in bytes."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(handle, 0, os.SEEK_END)
    finally:
        os.close(handle)
