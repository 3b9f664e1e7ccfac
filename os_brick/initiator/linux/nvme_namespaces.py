# SPDX-License-Identifier: Apache-2.0
"""Namespaces: what identifies one, and where they show below their controllers.

Without native multipath a namespace is the disk ``nvme<C>n<N>`` of its controller. With it, each
controller has a hidden path ``nvme<S>c<C>n<N>``, and the disk to use is the head ``nvme<S>n<N>``,
where S is the number of the *subsystem* (kernel: ``drivers/nvme/host/multipath.c``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from os_brick.initiator.linux import block, nvme
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme import CONTROLLERS, Controller
from os_brick.initiator.linux.nvme_ids import ENTRY, NamespaceIds, head_of, normal_uuid
from os_brick.initiator.linux.sysfs import Tree

_HEX32 = re.compile(r"[0-9a-f]{32}")
# States of asymmetric namespace access in which a path takes I/O (NVM Express base specification,
# ANA reporting; kernel: nvme_ana_state_names).
_ACCESSIBLE = frozenset({"", "optimized", "non-optimized"})


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace on one controller.

    :ivar entry: its name below the controller.
    :ivar ids: as the kernel shows them.
    :ivar instance: tells this entry from a later one of its name.
    """

    controller: Controller
    entry: str
    ids: NamespaceIds
    instance: int

    @property
    def head(self) -> str:
        """Kernel name of the disk to use."""
        return head_of(self.entry)

    @property
    def path(self) -> str:
        """Node of the disk to use."""
        return f"/dev/{self.head}"

    def __str__(self) -> str:
        return f"{self.head} on {self.controller} ({self.ids})"


# -- reading ---------------------------------------------------------------------------------
def is_entry(name: str) -> bool:
    """Tell whether a name is that of a namespace's disk or hidden path."""
    return bool(ENTRY.fullmatch(name))


def read_namespaces(sysfs: Tree, controller: Controller) -> list[Namespace]:
    """Return the namespaces on a controller; none if it is gone."""
    return _read_entries(sysfs, controller, _entries(sysfs, controller.name))


def _entries(sysfs: Tree, controller: str) -> list[str]:
    return [entry for entry in sysfs.names(CONTROLLERS, controller) if ENTRY.fullmatch(entry)]


def _read_entries(sysfs: Tree, controller: Controller, entries: Iterable[str]) -> list[Namespace]:
    read = (_read_namespace(sysfs, controller, entry) for entry in entries)
    found = [one for one in read if one is not None]
    return found if nvme.is_there(sysfs, controller) else []


def _read_namespace(sysfs: Tree, controller: Controller, entry: str) -> Namespace | None:
    where = f"{CONTROLLERS}/{controller.name}/{entry}"
    instance, ids = sysfs.instance(where), _read_ids(sysfs, where)
    return None if instance is None or ids is None else Namespace(controller, entry, ids, instance)


def is_shown(sysfs: Tree, one: Namespace) -> bool:
    """Tell whether its controller still shows this very namespace, under the same name."""
    shown = _read_namespace(sysfs, one.controller, one.entry)
    return shown == one and nvme.is_there(sysfs, one.controller)


def read_ids_of_head(sysfs: Tree, head: str) -> NamespaceIds | None:
    """Return what a disk shows of its namespace; None if it is none."""
    return _read_ids(sysfs, f"block/{head}")


def _read_ids(sysfs: Tree, where: str) -> NamespaceIds | None:
    nsid = sysfs.number(where, "nsid")
    if nsid is None:
        return None  # it is just going
    wwid = sysfs.text(where, "wwid")
    uuid = _shown(sysfs.text(where, "uuid")) or _shown(_after(wwid, "uuid."))
    nguid = _shown(sysfs.text(where, "nguid")) or _shown(_after(wwid, "eui."))
    return NamespaceIds(uuid, nguid, nsid)


def _after(text: str, prefix: str) -> str:
    return text.removeprefix(prefix) if text.startswith(prefix) else ""


def _shown(text: str) -> str:
    """Return an identifier in one spelling; empty if it is none (an EUI-64 is shorter)."""
    if not _HEX32.fullmatch(text.strip().lower().replace("-", "")):
        return ""
    return normal_uuid(text)


def find_fitting(
    sysfs: Tree, controllers: Iterable[Controller], wanted: NamespaceIds
) -> list[Namespace]:
    """Return the namespaces on controllers that are the wanted one for sure."""
    return [
        one
        for controller in controllers
        for one in read_namespaces(sysfs, controller)
        if wanted.fits(one.ids)
    ]


def is_accessible(sysfs: Tree, one: Namespace) -> bool:
    """Tell whether I/O can go by this path: its controller is live, and ANA allows it."""
    where = f"{CONTROLLERS}/{one.controller.name}/{one.entry}"
    return nvme.is_live(sysfs, one.controller) and (sysfs.text(where, "ana_state") in _ACCESSIBLE)


def is_usable(host: Host, one: Namespace) -> bool:
    """Tell whether the disk of a namespace can be used by this path."""
    return (
        is_accessible(host.sysfs, one)
        and bool(block.read_size(host.sysfs, one.head))
        and host.dev.exists(one.head)
    )


def paths_of(sysfs: Tree, head: str) -> list[Namespace]:
    """Return every fabrics controller's path to a disk, whoever connected it."""
    found = []
    for name in nvme.controller_names(sysfs):
        # By name first: hundreds of other disks' controllers need not be read for it.
        entries = [entry for entry in _entries(sysfs, name) if head_of(entry) == head]
        controller = nvme.read_controller(sysfs, name) if entries else None
        if controller is not None:
            found += _read_entries(sysfs, controller, entries)
    return found


def read_access(sysfs: Tree, one: Namespace) -> str:
    """Return how a path is, for people: its controller's state and its ANA state."""
    ana = sysfs.text(f"{CONTROLLERS}/{one.controller.name}/{one.entry}", "ana_state")
    state = nvme.read_state(sysfs, one.controller) or "gone"
    return f"{state}, {ana}" if ana else state
