# SPDX-License-Identifier: Apache-2.0
"""A block device of a storage vendor's own driver, such as ``/dev/scinia``."""

from __future__ import annotations

from collections.abc import Sequence

from os_brick.testing import block
from os_brick.testing.block import BlockDevice
from os_brick.testing.fake_host import FakeHost
from os_brick.testing.storage import GIB, Unit

_MAJOR = 251


class VendorDisk(BlockDevice):
    """A disk that appears and goes as the vendor's own software wants, with links that its udev
    rules make."""

    host: FakeHost
    unit: Unit
    links: Sequence[str]
    #: How I/O on it ends: ``alive``, ``fails`` or ``hangs``.
    state: str = block.ALIVE

    @classmethod
    def appear(
        cls, host: FakeHost, name: str, links: Sequence[str] = (), size: int = GIB
    ) -> VendorDisk:
        """Have a disk appear.

        :param name: kernel name.
        :param links: paths below ``/dev`` that lead to it.
        """
        number = (_MAJOR, len(host.devices.names()))
        disk = cls(name, number, f"devices/virtual/block/{name}", size)
        disk.host, disk.links, disk.unit = host, links, Unit("", name, size)
        with host._world.lock:
            host.devices.add(disk, {})
            for link in links:
                host._world.dev.link(link.removeprefix("/dev/"), name)
        host._world.notify()
        return disk

    def vanish(self, *, keep_links: bool = False) -> None:
        """Have it disappear; with its links, as udev does, unless they are kept."""
        with self.host._world.lock:
            self.host.devices.drop(self, "its storage took it away")
            for link in () if keep_links else self.links:
                self.host._world.dev.remove(link.removeprefix("/dev/"))
        self.host._world.notify()

    def grow(self, size: int) -> None:
        """Have its new size show."""
        with self.host._world.lock:
            self.host.devices.resize(self, size)

    def storage(self) -> tuple[str, Unit | None]:
        return self.state, self.unit if self.state == block.ALIVE else None
