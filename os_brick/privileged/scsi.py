# SPDX-License-Identifier: Apache-2.0
"""The few changes of SCSI devices that need root, each with checked arguments.

They run in the privileged daemon (or in the service itself where it is root). A write to sysfs can
block for minutes while the kernel recovers a path, so each runs in a thread of its own: the caller,
and the daemon's worker that serves it, are released at the limit. Arguments and results are plain
data.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import re
from typing import Any

from os_brick import privileged
from os_brick.privileged import guarded

_DEVICES = "/sys/bus/scsi/devices"
_HCTL = re.compile(r"\d{1,10}:\d{1,10}:\d{1,10}:\d{1,20}", re.ASCII)
_DISK = re.compile(r"[a-z0-9]{1,31}", re.ASCII)
# Also of an array that the kernel knows by its name: md_NAME.
_DEVICE = re.compile(r"[a-zA-Z0-9_-]{1,31}", re.ASCII)
_NUMBER_OR_ANY = re.compile(r"-|\d{1,20}", re.ASCII)
_IQN = re.compile(r"(iqn|eui|naa)\.[A-Za-z0-9.:_-]{1,220}", re.ASCII)
_ADDRESS = re.compile(r"[0-9A-Za-z.:%_-]{1,255}", re.ASCII)
# Where distributions let open-iscsi keep its node records.
_NODE_RECORDS = ("/etc/iscsi/nodes", "/var/lib/iscsi/nodes")
_SETTINGS = frozenset({"node.startup", "node.session.scan"})


# -- sysfs writes ----------------------------------------------------------------------------
@privileged.default.entrypoint
def scan(host: int, channel: str, target: str, lun: str, limit_s: float) -> None:
    """Have the kernel look for a LUN: ``channel target lun`` into the SCSI host's ``scan`` file.

    :raises TimeoutError: when the kernel had not finished after ``limit_s`` seconds (it goes on).
    :raises OSError: what the kernel answered.
    """
    words = [guarded.checked(_NUMBER_OR_ANY, word, "scan") for word in (channel, target, lun)]
    path = f"/sys/class/scsi_host/host{int(host)}/scan"
    guarded.write_file(path, " ".join(words), limit_s)


@privileged.default.entrypoint
def write_attribute(hctl: str, instance: int, attribute: str, limit_s: float) -> bool:
    """Delete, rescan or take offline one SCSI device, if it still is that very device.

    :param hctl: its address, ``"3:0:0:1"``.
    :param instance: inode number of its sysfs directory: a device that came later is left alone.
    :param attribute: ``delete``, ``rescan`` or ``state`` (which sets it offline).
    :returns: False if that device is gone.
    :raises TimeoutError: when the kernel had not finished after ``limit_s`` seconds (it goes on).
    :raises OSError: what the kernel answered.
    """
    text = {"delete": "1", "rescan": "1", "state": "offline"}[attribute]
    directory = f"{_DEVICES}/{guarded.checked(_HCTL, hctl, 'SCSI address')}"
    return guarded.write_of(directory, instance, attribute, text, limit_s)


# -- asking a device -------------------------------------------------------------------------
class _SgIoHeader(ctypes.Structure):
    """``struct sg_io_hdr`` of ``scsi/sg.h``."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


_SG_IO = 0x2285
_SG_DXFER_FROM_DEV = -3
_INQUIRY = 0x12
_PAGE_BYTES = 4096


@privileged.default.entrypoint
def inquire(name: str, hctl: str, instance: int, page: int, limit_s: float) -> dict[str, Any]:
    """Ask a disk itself for an INQUIRY page (what sysfs keeps may be older than the LUN's volume).

    :param name: kernel name of the disk, ``"sda"``.
    :param page: number of the vital product data page; -1 for the standard answer.
    :returns: ``{"page": bytes, "status": SCSI status, "host_status": transport status, "sense":
        bytes}``.
    :raises TimeoutError: no answer within ``limit_s`` seconds.
    :raises OSError: the device could not be opened, or is not that very device any more.
    """
    guarded.checked(_DISK, name, "disk")
    guarded.checked(_HCTL, hctl, "SCSI address")

    def ask() -> dict[str, Any]:
        fd = _open_disk(name, hctl, instance, os.O_NONBLOCK)
        try:
            return _sg_inquiry(fd, page, limit_s)
        finally:
            os.close(fd)

    answer: dict[str, Any] = guarded.within(limit_s, ask, f"INQUIRY of {name}")
    return answer


def _open_disk(name: str, hctl: str, instance: int, flags: int) -> int:
    """Return a file descriptor of this very disk.

    :raises OSError: it cannot be opened, or is another device now.
    """
    directory = f"{_DEVICES}/{hctl}"
    fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        number = os.fstat(fd).st_rdev
        with open(f"{directory}/block/{name}/dev", encoding="ascii") as attribute:
            expected = attribute.read().strip()
        if (
            os.stat(directory).st_ino != instance
            or expected != f"{os.major(number)}:{os.minor(number)}"
        ):
            raise OSError(errno.ENODEV, f"{name} is another device now")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _sg_inquiry(fd: int, page: int, limit_s: float) -> dict[str, Any]:
    command = (ctypes.c_ubyte * 6)(
        _INQUIRY, int(page >= 0), max(page, 0), _PAGE_BYTES >> 8, _PAGE_BYTES & 0xFF, 0
    )
    data = ctypes.create_string_buffer(_PAGE_BYTES)
    sense = ctypes.create_string_buffer(64)
    header = _SgIoHeader(
        interface_id=ord("S"),
        dxfer_direction=_SG_DXFER_FROM_DEV,
        cmd_len=len(command),
        mx_sb_len=len(sense),
        dxfer_len=len(data),
        dxferp=ctypes.addressof(data),
        cmdp=ctypes.addressof(command),
        sbp=ctypes.addressof(sense),
        timeout=int(limit_s * 1000),
    )
    fcntl.ioctl(fd, _SG_IO, header)
    return {
        "page": data.raw[: _PAGE_BYTES - max(header.resid, 0)],
        "status": header.status,
        "host_status": header.host_status,
        "sense": sense.raw[: header.sb_len_wr],
    }


@privileged.default.entrypoint
def read_block(name: str, hctl: str, instance: int, limit_s: float) -> None:
    """Read the first block of a disk from the storage, not from memory.

    :param name: kernel name of the disk, ``"sda"``.
    :param hctl: its address, ``"3:0:0:1"``.
    :param instance: inode number of its sysfs directory.
    :raises TimeoutError: no answer within ``limit_s`` seconds.
    :raises OSError: it cannot be read, or is not that very device any more.
    """
    guarded.checked(_DISK, name, "disk")
    guarded.checked(_HCTL, hctl, "SCSI address")

    def read() -> bool:
        fd = _open_disk(name, hctl, instance, os.O_DIRECT)
        try:
            # Direct I/O wants whole blocks in aligned memory: a page is both.
            with mmap.mmap(-1, _PAGE_BYTES) as buffer:
                if os.preadv(fd, [buffer], 0) == 0:
                    raise OSError(errno.EIO, f"{name} has no data")
        finally:
            os.close(fd)
        return True

    guarded.within(limit_s, read, f"read of {name}")


@privileged.default.entrypoint
def is_claimed(name: str, limit_s: float) -> bool:
    """Tell whether somebody holds a disk for himself alone (a file system, a mapping, swap, RAID).

    Found by asking for the same: ``O_EXCL`` without ``O_CREAT`` on a block device, which the kernel
    grants to one holder at a time (open(2)). Opened for reading, so that udev does not take notice.

    :raises TimeoutError: it could not be opened within ``limit_s`` seconds: somebody's close, which
        writes out to a path that is down, has it locked.
    :raises OSError: the device could not be opened for another reason.
    """
    guarded.checked(_DEVICE, name, "device")
    return bool(guarded.within(limit_s, lambda: _is_claimed(name), f"opening {name}"))


def _is_claimed(name: str) -> bool:
    try:
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            return True
        if exc.errno in guarded.GONE:
            return False
        raise
    os.close(fd)
    return False


# -- open-iscsi's records --------------------------------------------------------------------
@privileged.default.entrypoint
def read_node_settings(iqn: str, address: str, port: int) -> dict[str, str] | None:
    """Read startup and scan mode from the node record of a target and portal; nothing secret is
    read out.

    The record is a file ``<iqn>/<address>,<port>`` or, with a portal group tag, a folder
    ``<iqn>/<address>,<port>,<tpgt>`` with a file for each interface, of ``name = value`` lines.

    :returns: the settings found; empty if there is no record; None if open-iscsi keeps its records
        somewhere else, so that this cannot be said, or by names that are not looked for here. (It
        makes the folder with its first record.)
    """
    try:
        guarded.checked(_IQN, iqn, "target name")
        prefix = f"{guarded.checked(_ADDRESS, address, 'portal address')},{int(port)}"
    except ValueError:
        return None  # iscsiadm knows
    roots = [root for root in _NODE_RECORDS if os.path.isdir(os.path.dirname(root))]
    if not roots:
        return None
    for root in roots:
        folder = os.path.join(root, iqn)
        try:
            for entry in sorted(os.listdir(folder)):
                if entry == prefix or entry.startswith(f"{prefix},"):
                    return _read_settings(os.path.join(folder, entry))
        except (FileNotFoundError, NotADirectoryError):
            continue  # the folder goes with the last record in it
    return {}


def _read_settings(record: str) -> dict[str, str]:
    if os.path.isdir(record):
        files = [os.path.join(record, name) for name in sorted(os.listdir(record))]
    else:
        files = [record]
    settings = {"record": "yes"}
    for file in files[:1]:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(" = ")
                if name in _SETTINGS:
                    settings[name] = value.strip()
    return settings
