# SPDX-License-Identifier: Apache-2.0
"""udev: it hears of devices late, makes their links, and passes the news on."""

from __future__ import annotations

from collections.abc import Callable

from os_brick.initiator.linux.identity import normal_form
from os_brick.testing.block import BlockDevice
from os_brick.testing.device_mapper import Mapping, MultipathMap
from os_brick.testing.scsi import Disk
from os_brick.testing.world import World


class Udev:
    """Links below ``/dev/disk`` and ``/dev/mapper``, each owned by the device with the best claim
    to it."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: What ``multipath -u`` answers about a disk.
        self.is_for_multipath: Callable[[Disk], bool] = lambda disk: False
        self._claims: dict[str, list[tuple[int, BlockDevice]]] = {}
        #: Called with "add", "change" or "remove" and the device, after its links are as they
        #: should be.
        self.listeners: list[Callable[[str, BlockDevice], None]] = []
        #: Events of removals are lost, so that links stay and dangle.
        self.forgets_links = False
        self._queued = 0
        self._since: dict[BlockDevice, int] = {}

    def hear(self, what: str, device: BlockDevice) -> None:
        """Take an event of the kernel; it is handled after a delay."""
        self._queued += 1
        self._world.run.write("udev/queue", "")
        self._world.after(self._world.delays.udev_s, lambda: self._handle(what, device))

    def _handle(self, what: str, device: BlockDevice) -> None:
        self._queued -= 1
        if not self._queued:
            self._world.run.remove("udev/queue")
        if what != "remove" or not self.forgets_links:
            self._update_links(what, device)
        for listener in self.listeners:
            listener(what, device)

    def _update_links(self, what: str, device: BlockDevice) -> None:
        self._note(what, device)
        touched = {
            link for link, claims in self._claims.items() if any(one is device for _, one in claims)
        }
        for link in touched:
            self._claims[link] = [claim for claim in self._claims[link] if claim[1] is not device]
        if what != "remove" and not device.gone:
            priority = 50 if isinstance(device, MultipathMap) else 0
            for link in self._links(device):
                self._claims.setdefault(link, []).append((priority, device))
                touched.add(link)
        for link in touched:
            self._show(link)

    def _note(self, what: str, device: BlockDevice) -> None:
        """Keep the device in udev's database, with what ``multipath -u`` says of a disk."""
        entry = f"udev/data/b{device.dev}"
        if what == "remove" or device.gone:
            self._since.pop(device, None)
            self._world.run.remove(entry)
            return
        since = self._since.setdefault(device, int(self._world.clock.now() * 1e6))
        text = f"I:{since}\n"
        if isinstance(device, Disk):
            text += f"E:DM_MULTIPATH_DEVICE_PATH={int(self.is_for_multipath(device))}\n"
        self._world.run.write(entry, text)

    def _show(self, link: str) -> None:
        claims = self._claims[link]
        if claims:
            best = max(claims, key=lambda claim: claim[0])[1]
            self._world.dev.link(link, best.name)
        else:
            self._world.dev.remove(link)
            del self._claims[link]

    def _links(self, device: BlockDevice) -> list[str]:
        if isinstance(device, Mapping):
            links = [
                f"mapper/{device.dm_name}",
                f"disk/by-id/dm-name-{device.dm_name}",
                f"disk/by-id/dm-uuid-{device.uuid}",
            ]
            return links + (_by_wwid(device.wwid) if isinstance(device, MultipathMap) else [])
        if isinstance(device, Disk):
            return _by_wwid(device.wwid) + _by_path(device)
        return []


def _by_wwid(wwid: str) -> list[str]:
    if not wwid:
        return []
    links = [f"disk/by-id/scsi-{normal_form(wwid)}"]
    return links + ([f"disk/by-id/wwn-0x{wwid[1:]}"] if wwid[0] in "23" else [])


def _by_path(disk: Disk) -> list[str]:
    device = disk.device
    if device is None:
        return []
    return [f"disk/by-path/{device.target.transport.link_name(device.hctl.lun)}"]
