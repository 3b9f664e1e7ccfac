# SPDX-License-Identifier: Apache-2.0
"""Block devices in general: who uses them, what is written to them, and whether it reaches the
storage."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from os_brick.testing.storage import Unit
from os_brick.testing.world import Loss, World

#: Answers of the way to the storage.
ALIVE, FAILS, HANGS = "alive", "fails", "hangs"
_NO_STAT = " ".join("0" * 11)


@dataclass(eq=False)
class Opening:
    """One open file of a block device. Use as a context manager, or close by hand."""

    device: BlockDevice
    exclusive: bool
    devices: Devices
    is_open: bool = True

    def write(self, data: bytes) -> None:
        """Write to the page cache; nothing reaches the storage yet."""
        self.device.dirty.append(data)

    def close(self) -> None:
        """Close; the last one of a device writes out what is dirty, and nobody hears of it if that
        fails."""
        self.devices.close(self)

    def __enter__(self) -> Opening:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(eq=False)
class BlockDevice:
    """One block device as long as it exists; a later one of its name is another."""

    name: str
    number: tuple[int, int]
    sysfs: str
    size: int
    dirty: list[bytes] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    holders: list[BlockDevice] = field(default_factory=list)
    partitions: list[Partition] = field(default_factory=list)
    gone: bool = False
    #: Write requests that were completed.
    writes: int = 0
    read_only: bool = False

    def carriers(self) -> list[BlockDevice]:
        """Return the devices it sits on, those first that take its I/O."""
        return []

    def storage(self) -> tuple[str, Unit | None]:
        """Tell how I/O on it would end now, and on which unit."""
        raise NotImplementedError

    @property
    def dev(self) -> str:
        """Its device number as sysfs writes it."""
        return f"{self.number[0]}:{self.number[1]}"

    @property
    def openers(self) -> int:
        """How often it is open, as ``dmsetup info`` counts: files, mounts and devices on top."""
        return len(self.openings) + len(self.mounts) + len(self.holders)

    @property
    def claimed(self) -> bool:
        """Whether somebody holds it for himself alone."""
        return (
            bool(self.mounts or self.holders)
            or any(one.exclusive for one in self.openings)
            or any(one.claimed for one in self.partitions)
        )


@dataclass(eq=False)
class Partition(BlockDevice):
    """A part of a disk."""

    parent: BlockDevice | None = None

    def storage(self) -> tuple[str, Unit | None]:
        return self.parent.storage() if self.parent is not None else (FAILS, None)

    def carriers(self) -> list[BlockDevice]:
        return [self.parent] if self.parent is not None else []


def octal(where: str) -> str:
    """Return a path as the mount table writes it (proc(5)): blanks in octal."""
    return where.replace(" ", "\\040")


class Devices:
    """All block devices of the host, by kernel name, and the files of those in sysfs and
    ``/dev``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._by_name: dict[str, BlockDevice] = {}
        self._mount_ids = itertools.count(100)
        #: Further lines of the mount table, of file systems without a device.
        self.more_mounts: list[Callable[[], list[str]]] = []
        #: Called with a device whose last user has gone.
        self.when_idle: list[Callable[[BlockDevice], None]] = []
        self.show_mounts()

    # -- finding ---------------------------------------------------------------------------
    def names(self) -> list[str]:
        """Return the kernel names of all block devices."""
        return sorted(self._by_name)

    def find(self, path: str) -> BlockDevice | None:
        """Return the device that a path (``/dev/…``, also below the fake root) or a kernel name
        leads to."""
        name = path.removeprefix(self._world.dev.root).removeprefix("/dev").lstrip("/")
        real = os.path.realpath(self._world.dev.path(name))
        if os.path.dirname(real) == self._world.dev.root:
            return self._by_name.get(os.path.basename(real))
        return None

    def get(self, path: str) -> BlockDevice:
        """Return the device that a path leads to.

        :raises FileNotFoundError: if there is none.
        """
        device = self.find(path)
        if device is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return device

    def free_name(self, prefix: str) -> str:
        """Return the lowest free name, as the kernel hands them out: it is used again as soon as it
        is free."""
        letters = "abcdefghijklmnopqrstuvwxyz"
        if prefix == "dm-":
            return next(f"dm-{n}" for n in itertools.count() if f"dm-{n}" not in self._by_name)
        for length in itertools.count(1):
            for tail in itertools.product(letters, repeat=length):
                name = prefix + "".join(tail)
                if name not in self._by_name:
                    return name
        raise AssertionError("unreachable")

    # -- coming and going ------------------------------------------------------------------
    def add(self, device: BlockDevice, parent_files: dict[str, object]) -> None:
        """Have a device appear in sysfs and in ``/dev``.

        :param parent_files: further files of its sysfs directory.
        """
        files: dict[str, object] = {
            "size": device.size // 512,
            "ro": int(device.read_only),
            "dev": device.dev,
            "stat": _NO_STAT,
            "holders/": "",
            "slaves/": "",
            **parent_files,
        }
        self._world.sys.directory(device.sysfs, files)
        self._world.sys.link(f"block/{device.name}", device.sysfs)
        self._show(device)

    def add_partition(self, device: BlockDevice, number: int) -> Partition:
        """Have a partition of a device appear, of half its size."""
        name = f"{device.name}{number}"
        place = (device.number[0], device.number[1] + number)
        made = Partition(name, place, f"{device.sysfs}/{name}", device.size // 2, parent=device)
        files: dict[str, object] = {"partition": number, "start": 2048, "ro": 0, "dev": made.dev}
        self._world.sys.directory(
            made.sysfs, {**files, "size": made.size // 512, "stat": _NO_STAT, "holders/": ""}
        )
        device.partitions.append(made)
        self._show(made)
        return made

    def _show(self, device: BlockDevice) -> None:
        self._by_name[device.name] = device
        self._world.sys.link(f"class/block/{device.name}", device.sysfs)
        self._world.sys.link(f"dev/block/{device.dev}", device.sysfs)
        self._world.dev.write(device.name, "")
        self._world.notify()

    def _hide(self, device: BlockDevice, why: str) -> None:
        device.gone = True
        self._lose(device, why)
        self._world.sys.remove(f"class/block/{device.name}")
        self._world.sys.remove(f"dev/block/{device.dev}")
        self._world.dev.remove(device.name)
        if self._by_name.get(device.name) is device:
            del self._by_name[device.name]

    def drop(self, device: BlockDevice, why: str) -> None:
        """Have a device disappear; what is dirty is lost."""
        if device.gone:
            return
        for partition in device.partitions:
            self._hide(partition, why)
        self._hide(device, why)
        self._world.sys.remove(f"block/{device.name}")
        self._world.sys.remove(device.sysfs)
        self._world.notify()

    def _lose(self, device: BlockDevice, why: str) -> None:
        for data in device.dirty:
            self._world.lost.append(Loss(device.name, data, why))
        device.dirty.clear()

    def resize(self, device: BlockDevice, size: int) -> None:
        """Have a device's new size show."""
        device.size = size
        self._world.sys.write(f"{device.sysfs}/size", size // 512)
        self._world.notify()

    def hold(self, holder: BlockDevice, held: BlockDevice) -> None:
        """Put one device on top of another."""
        held.holders.append(holder)
        self._world.sys.link(f"{held.sysfs}/holders/{holder.name}", holder.sysfs)
        self._world.sys.link(f"{holder.sysfs}/slaves/{held.name}", held.sysfs)

    def release(self, holder: BlockDevice, held: BlockDevice) -> None:
        """Take one device off another."""
        if holder in held.holders:
            held.holders.remove(holder)
            self._tell_idle(held)
        if not held.gone:
            self._world.sys.remove(f"{held.sysfs}/holders/{holder.name}")
        # A new device may have the name of the old one already, and be held too.
        successor = self._by_name.get(held.name)
        if successor is None or successor is held or holder not in successor.holders:
            self._world.sys.remove(f"{holder.sysfs}/slaves/{held.name}")
        self._world.notify()

    # -- using -----------------------------------------------------------------------------
    def open(self, path: str, *, exclusive: bool = False) -> Opening:
        """Open a device as some process does.

        :raises OSError: EBUSY if it (or the other) wants it for itself alone.
        """
        with self._world.lock:
            device = self.get(path)
            if exclusive and device.claimed:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
            opening = Opening(device, exclusive, self)
            device.openings.append(opening)
        self._world.notify()
        return opening

    def close(self, opening: Opening) -> None:
        """Close an open device."""
        with self._world.lock:
            if not opening.is_open:
                return
            opening.is_open = False
            device = opening.device
            device.openings.remove(opening)
            state, unit = device.storage()
            if not device.openers and device.dirty and not device.gone:
                if state == ALIVE and unit is not None:
                    self._write_out(device, unit)
                elif state == FAILS:
                    self._lose(device, "the last close() could not write it")
            self._tell_idle(device)
        self._world.notify()

    def _tell_idle(self, device: BlockDevice) -> None:
        if not device.openers:
            for listener in self.when_idle:
                listener(device)

    def forget(self, opening: Opening) -> bool:
        """Close an open device without writing anything out: the file was only synchronized."""
        if opening.is_open:
            opening.is_open = False
            opening.device.openings.remove(opening)
            self._tell_idle(opening.device)
        return True

    def mount(self, path: str, where: str) -> None:
        """Mount a device; it is claimed and shows in ``/proc/self/mountinfo``.

        :raises OSError: EBUSY if somebody has claimed it.
        """
        with self._world.lock:
            device = self.get(path)
            if device.claimed and not device.mounts:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
            device.mounts.append(where)
            self.show_mounts()
        self._world.notify()

    def unmount(self, where: str) -> None:
        """Unmount what is mounted there, which writes it out if it can."""
        with self._world.lock:
            for device in list(self._by_name.values()):
                if where in device.mounts:
                    device.mounts.remove(where)
                    state, unit = device.storage()
                    if state == ALIVE and unit is not None:
                        self._write_out(device, unit)
                    self._tell_idle(device)
            self.show_mounts()
        self._world.notify()

    def show_mounts(self) -> None:
        """Write the mount table."""
        lines = ["22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw"]
        for device in self._by_name.values():
            for where in device.mounts:
                lines.append(
                    f"{next(self._mount_ids)} 22 {device.dev} / {octal(where)}"
                    f" rw,relatime shared:1 - ext4 /dev/{device.name} rw"
                )
        lines.extend(line for more in self.more_mounts for line in more())
        self._world.proc.write("self/mountinfo", "\n".join(lines))

    def _write_out(self, device: BlockDevice, unit: Unit) -> None:
        unit.data += b"".join(device.dirty)
        device.dirty.clear()
        self._count_write(device)

    def _count_write(self, device: BlockDevice) -> None:
        """Show a completed write (failed ones count too) in the statistics of a device and of what
        carries it."""
        for one in (device, *device.carriers()[:1]):
            one.writes += 1
            if not one.gone:
                self._world.sys.write(f"{one.sysfs}/stat", f"1 0 8 0 {one.writes} 0 8 0 0 0 0")

    def fsync(self, device: BlockDevice) -> str:
        """Try to write out what is dirty; tell how that ended (``hangs``: not yet).

        What could not be written stays dirty here, so that it can be tried again; Linux drops it
        after having told one caller.
        """
        if not device.dirty:
            return ALIVE
        if device.gone:
            return FAILS
        state, unit = device.storage()
        if state == ALIVE and unit is not None:
            self._write_out(device, unit)
            return ALIVE
        if state != HANGS:
            self._count_write(device)
        return HANGS if state == HANGS else FAILS
