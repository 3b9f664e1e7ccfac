# SPDX-License-Identifier: Apache-2.0
"""The few things that only root may do to NVMe controllers and namespaces, with checked arguments.

They run in the privileged daemon (or in the service itself where it is root). Each runs in a thread
of its own, so that the caller is released at its limit whatever the kernel waits for.
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

_CONTROLLERS = "/sys/class/nvme-fabrics/ctl"
_BLOCK = "/sys/block"
_CONTROLLER = re.compile(r"nvme\d{1,10}", re.ASCII)
_NAMESPACE = re.compile(r"nvme\d{1,10}n\d{1,10}", re.ASCII)
_ATTRIBUTES = frozenset({"rescan_controller", "delete_controller"})


@privileged.default.entrypoint
def write_attribute(controller: str, instance: int, attribute: str, limit_s: float) -> bool:
    """Have the kernel look for namespaces of a controller, or delete it, if it still is that one.

    :param controller: its name, ``"nvme3"``.
    :param instance: inode number of its sysfs directory: a controller that came later is left
        alone.
    :param attribute: ``rescan_controller`` or ``delete_controller``.
    :returns: False if that controller is gone.
    :raises TimeoutError: when the kernel had not finished after ``limit_s`` seconds (it goes on).
    :raises OSError: what the kernel answered.
    """
    if attribute not in _ATTRIBUTES:
        raise ValueError(f"attribute: {attribute!r} is not valid here")
    name = guarded.checked(_CONTROLLER, controller, "controller")
    directory = f"{_CONTROLLERS}/{name}"
    return guarded.write_of(directory, instance, attribute, "1", limit_s)


# -- asking a controller ---------------------------------------------------------------------
class AdminCommand(ctypes.Structure):
    """``struct nvme_admin_cmd`` of ``linux/nvme_ioctl.h``."""

    _fields_ = (
        ("opcode", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("rsvd1", ctypes.c_uint16),
        ("nsid", ctypes.c_uint32),
        ("cdw2", ctypes.c_uint32),
        ("cdw3", ctypes.c_uint32),
        ("metadata", ctypes.c_uint64),
        ("addr", ctypes.c_uint64),
        ("metadata_len", ctypes.c_uint32),
        ("data_len", ctypes.c_uint32),
        ("cdw10", ctypes.c_uint32),
        ("cdw11", ctypes.c_uint32),
        ("cdw12", ctypes.c_uint32),
        ("cdw13", ctypes.c_uint32),
        ("cdw14", ctypes.c_uint32),
        ("cdw15", ctypes.c_uint32),
        ("timeout_ms", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
    )


#: _IOWR('N', 0x41, struct nvme_admin_cmd)
IOCTL_ADMIN_CMD = 3 << 30 | ctypes.sizeof(AdminCommand) << 16 | ord("N") << 8 | 0x41
_IDENTIFY = 0x06
_IDENTIFY_BYTES = 4096
# Identify Namespace, active namespace list, namespace identification descriptors (NVM Express base
# specification, Identify command, CNS values).
_STRUCTURES = frozenset({0x00, 0x02, 0x03})


@privileged.default.entrypoint
def identify(
    controller: str, instance: int, structure: int, nsid: int, limit_s: float
) -> dict[str, Any]:
    """Ask a controller's subsystem itself (what sysfs shows may be older than the namespace).

    :param controller: its name, ``"nvme3"``.
    :param instance: inode number of its sysfs directory.
    :param structure: what to ask for, the command's CNS: 0 the namespace, 2 the list of namespaces
        above ``nsid``, 3 the namespace's identifiers.
    :returns: ``{"status": NVMe status, 0 for success, "data": 4096 bytes}``.
    :raises TimeoutError: no answer within ``limit_s`` seconds.
    :raises OSError: it could not be asked, or is not that very controller any more.
    """
    name = guarded.checked(_CONTROLLER, controller, "controller")
    if structure not in _STRUCTURES:
        raise ValueError(f"structure: {structure!r} is not valid here")

    def ask() -> dict[str, Any]:
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            directory = f"{_CONTROLLERS}/{name}"
            _check_number(fd, f"{directory}/dev")
            if os.stat(directory).st_ino != instance:
                raise OSError(errno.ENODEV, f"{name} is another controller now")
            return _ask(fd, structure, nsid, limit_s)
        finally:
            os.close(fd)

    answer: dict[str, Any] = guarded.within(limit_s, ask, f"Identify of {name}")
    return answer


def _ask(fd: int, structure: int, nsid: int, limit_s: float) -> dict[str, Any]:
    data = ctypes.create_string_buffer(_IDENTIFY_BYTES)
    command = AdminCommand(
        opcode=_IDENTIFY,
        nsid=nsid,
        addr=ctypes.addressof(data),
        data_len=_IDENTIFY_BYTES,
        cdw10=structure,
        timeout_ms=max(int(limit_s * 1000), 1),
    )
    status = fcntl.ioctl(fd, IOCTL_ADMIN_CMD, command)
    return {"status": status, "data": data.raw}


def _check_number(fd: int, attribute: str) -> None:
    """Raise OSError if an open node is not the device of an attribute ``dev``."""
    number = os.fstat(fd).st_rdev
    with open(attribute, encoding="ascii") as file:
        expected = file.read().strip()
    if expected != f"{os.major(number)}:{os.minor(number)}":
        raise OSError(errno.ENODEV, f"{attribute} is of another device now")


@privileged.default.entrypoint
def read_block(name: str, limit_s: float) -> None:
    """Read the first block of a namespace from the storage, not from memory.

    :param name: kernel name of its disk, ``"nvme0n1"``.
    :raises TimeoutError: no answer within ``limit_s`` seconds.
    :raises OSError: it cannot be read.
    """
    guarded.checked(_NAMESPACE, name, "namespace")

    def read() -> bool:
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            _check_number(fd, f"{_BLOCK}/{name}/dev")
            # Direct I/O wants whole blocks in aligned memory.
            with open(f"{_BLOCK}/{name}/queue/logical_block_size", encoding="ascii") as file:
                size = max(int(file.read()), mmap.PAGESIZE)
            with mmap.mmap(-1, size) as buffer:
                if os.preadv(fd, [buffer], 0) == 0:
                    raise OSError(errno.EIO, f"{name} has no data")
        finally:
            os.close(fd)
        return True

    guarded.within(limit_s, read, f"read of {name}")
