# SPDX-License-Identifier: Apache-2.0
"""Finding what of a namespace is on this host.

Found by the volume's identity, through the controllers of its portals in whatever state they are.
Portals, the names of hosts and this host's own name may be others than at the attach, so a
namespace with an identifier is also looked for on the other controllers of its subsystem.
A device path that the caller remembers may be another volume's by now, so it never decides alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    md,
    nodes,
    nvme,
    nvme_namespaces,
    nvme_portals,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme import Controller
from os_brick.initiator.linux.nvme_changes import HostIdentity
from os_brick.initiator.linux.nvme_connections import Way
from os_brick.initiator.linux.nvme_namespaces import Namespace
from os_brick.initiator.linux.nvme_volume import NvmeTarget, NvmeVolume

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Presence:
    """What of a namespace is on this host.

    :ivar controllers: those of its portals, and others that show it, with the way that they go.
    :ivar namespaces: its paths on them.
    :ivar ways: to its portals, with or without a controller.
    :ivar doubt: what keeps us from saying that nothing of it is here, though nothing was found.
    """

    target: NvmeTarget
    controllers: tuple[tuple[Way, Controller], ...]
    namespaces: tuple[Namespace, ...]
    doubt: exception.TargetPortalNotFound | None = None
    ways: tuple[Way, ...] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """Kernel names of its disks: one, or one for each controller without native multipath."""
        return tuple(dict.fromkeys(one.head for one in self.namespaces))

    def is_ours(self, one: Namespace) -> bool:
        """Tell whether a namespace on one of the controllers is this one."""
        if self.target.ids:
            return bool(self.target.ids.fits(one.ids))
        # Its name may be another's by now, that has other identifiers.
        return any(one.head == known.head and one.ids == known.ids for known in self.namespaces)


def find_volume(
    host: Host,
    call: Call,
    volume: NvmeVolume,
    identity: HostIdentity,
    path_used: str | None = None,
    *,
    trusting: bool = True,
) -> list[Presence]:
    """Return what of each of a volume's namespaces is here; changes nothing.

    :param path_used: the device that the caller was given, if he knows it.
    :param trusting: whether that is the volume where it has no identifier.
    :raises BrickException: which controllers are this host's cannot be told.
    :raises OSError: the host could not be looked at.
    """
    used = _disks_of(host, volume, path_used)
    trusted = path_used if trusting and not volume.alias else None
    return [_find(host, call, target, identity, used, trusted) for target in volume.targets]


def _disks_of(host: Host, volume: NvmeVolume, path_used: str | None) -> set[str]:
    """Return the kernel names of the disks below what was used for a volume, if it still is
    there."""
    paths = [path_used, volume.md_path] if volume.alias else [path_used]
    names = {nodes.kernel_name(host, path) for path in paths}
    disks = set()
    for name in filter(None, names):
        is_array = host.sysfs.exists("block", name, "md")
        disks.update(md.members_of(host.sysfs, name) if is_array else [name])
    return disks


def _find(
    host: Host,
    call: Call,
    target: NvmeTarget,
    identity: HostIdentity,
    used: Collection[str],
    path_used: str | None,
) -> Presence:
    ways, unresolved = nvme_portals.ways_to_look(host, call, target, identity)
    with call.step("find the namespace") as step:
        own = target.host_nqn or identity.nqn
        subsystem = nvme.read_controllers(host.sysfs, target.nqn)
        at = nvme.by_portal(subsystem, [way.portal for way in ways], own)
        controllers = [
            (way.of(controller), controller) for way in ways for controller in at[way.portal]
        ]
        if target.ids:
            controllers += _elsewhere(
                host, target, subsystem, own, controllers, used, bool(unresolved)
            )
        everything = _on(host, controllers)
        if target.ids:
            ours = [one for one in everything if target.ids.fits(one.ids)]
        else:
            ours = _the_only_one(host, everything, path_used)
        step.outcome = ", ".join(map(str, ours)) or "nothing"
    doubt = None
    if unresolved and not ours and subsystem:
        portals = ", ".join(map(str, target.portals))
        doubt = exception.TargetPortalNotFound(target_portal=portals, reason=unresolved)
    found = Presence(target, tuple(controllers), tuple(ours), doubt, tuple(ways))
    one = nodes.kernel_name(host, path_used)
    if one is not None and one not in found.heads:
        LOG.warning(
            "%s, which was used for the %s, is not that namespace any more; its identity counts",
            path_used,
            target,
        )
    return found


def _on(host: Host, controllers: Iterable[tuple[Way, Controller]]) -> list[Namespace]:
    return [
        one
        for _way, controller in controllers
        for one in nvme_namespaces.read_namespaces(host.sysfs, controller)
    ]


def _elsewhere(
    host: Host,
    target: NvmeTarget,
    subsystem: Sequence[Controller],
    own: str | None,
    known: Sequence[tuple[Way, Controller]],
    used: Collection[str],
    unresolved: bool,
) -> list[tuple[Way, Controller]]:
    """Return further controllers on which a namespace shows and which are the volume's, with the
    way that they go.

    Those of this host are, if the disk that was used is reached by them, or if the portals do not
    lead to it: others have been given meanwhile, or their names lead elsewhere or nowhere. Those
    under other names of this host are, if only by them the disk that was used is reached: the
    host's name was another then. Everything else is somebody else's.

    :param subsystem: all controllers of the volume's subsystem.
    :param own: the name of this host there; None for any.
    :param known: the controllers of the portals.
    """
    there = {controller for _way, controller in known}
    mine: list[tuple[Controller, bool]] = []
    others: list[tuple[Controller, bool]] = []
    for controller in subsystem:
        heads = {
            one.head for one in nvme_namespaces.find_fitting(host.sysfs, [controller], target.ids)
        }
        if heads and controller not in there:
            is_own = own is None or controller.host_nqn in (None, own)
            (mine if is_own else others).append((controller, not heads.isdisjoint(used)))
    nothing = not any(target.ids.fits(one.ids) for one in _on(host, known))
    found = [one for one, is_used in mine if is_used or nothing or unresolved]
    if nothing and not mine:
        found = [one for one, is_used in others if is_used]
    for one in found:
        LOG.warning("The %s is here by %s too: %s", target, one, one.portal)
    return [(Way(target.nqn, one.portal, one.host_nqn or own), one) for one in found]


def _the_only_one(
    host: Host, everything: Sequence[Namespace], path_used: str | None
) -> list[Namespace]:
    """Return the paths of a namespace that has no identifier: the device that was used, if it is
    this subsystem's, or the only one there is."""
    if path_used:
        used = nodes.kernel_name(host, path_used)
        return [one for one in everything if one.head == used]
    disks = {(one.ids.nsid, one.ids.uuid, one.ids.nguid) for one in everything}
    if len(disks) > 1:
        LOG.error(
            "The connection names neither a namespace nor a device, and the subsystem shows %s: "
            "none of them is taken for the volume",
            ", ".join(sorted({one.head for one in everything})),
        )
        return []
    return list(everything)
