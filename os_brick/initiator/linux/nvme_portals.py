# SPDX-License-Identifier: Apache-2.0
"""The ways to a subsystem: names resolved, Fibre Channel ports with the way from here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from os_brick import exception, utils
from os_brick.initiator.linux import fc, nvme, nvme_identity
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme import Portal
from os_brick.initiator.linux.nvme_changes import HostIdentity
from os_brick.initiator.linux.nvme_connections import Way
from os_brick.initiator.linux.nvme_volume import NvmeTarget
from os_brick.initiator.linux.sysfs import Tree

_RESOLVE_LIMIT_S = 30.0
_RPORT = re.compile(r"rport-(\d+):\d+-\d+")


def ways_to_connect(
    host: Host, call: Call, target: NvmeTarget, identity: HostIdentity
) -> list[Way]:
    """Return the ways by which a target's subsystem can be connected, in the order given: a Fibre
    Channel portal is one for each port of this host that sees it.

    :raises BrickException: which controllers are this host's cannot be told.
    :raises TargetPortalNotFound: no portal can be used; a single name without an address costs only
        its portal.
    """
    ways, troubles = _ways(host, call, target, identity, to_connect=True)
    if not ways:
        raise exception.TargetPortalNotFound(
            target_portal=", ".join(map(str, target.portals)),
            reason=" ".join(troubles) or "No Fibre Channel port of this host is online.",
        )
    return ways


def ways_to_look(
    host: Host, call: Call, target: NvmeTarget, identity: HostIdentity
) -> tuple[list[Way], str]:
    """Return the ways by which a target's subsystem may be connected already, and why others are
    not known: a Fibre Channel portal stands for whatever port has connected it.

    :raises BrickException: which controllers are this host's cannot be told.
    """
    ways, troubles = _ways(host, call, target, identity, to_connect=False)
    return ways, " ".join(troubles)


def _ways(
    host: Host, call: Call, target: NvmeTarget, identity: HostIdentity, *, to_connect: bool
) -> tuple[list[Way], list[str]]:
    host_nqn = target.host_nqn or identity.nqn
    options = nvme_identity.presented(host.sysfs, identity, target.host_nqn)
    if host_nqn is None:
        names = {one.host_nqn for one in nvme.read_controllers(host.sysfs, target.nqn)}
        if len(names) > 1:
            raise exception.BrickException(
                f"{target.nqn} is connected under several host NQNs, and this host's own is "
                f"not known: {utils.HOST_NQN_FILE} is missing"
            )
    portals, troubles = _resolved(host, call, target, to_connect)
    return [Way(target.nqn, portal, host_nqn, options) for portal in portals], troubles


def _resolved(
    host: Host, call: Call, target: NvmeTarget, to_connect: bool
) -> tuple[list[Portal], list[str]]:
    """Return a target's portals as the kernel states them, and what is wrong with others.

    Of several addresses of a name the one that has a controller counts, else the first.
    """
    portals: dict[Portal, None] = {}
    troubles: list[str] = []
    for portal in target.portals:
        if portal.transport == nvme.FC and to_connect:
            portals.update(dict.fromkeys(_from_here(host.sysfs, portal)))
        elif portal.is_name:
            try:
                portals[_of_name(host, call, target, portal)] = None
            except (exception.TargetPortalNotFound, OSError, UnicodeError) as exc:
                troubles.append(f"{portal.address}: {exc}")
        else:
            portals[portal] = None
    return list(portals), troubles


def _of_name(host: Host, call: Call, target: NvmeTarget, portal: Portal) -> Portal:
    with call.step(f"resolve {portal.address}"):
        # In a thread: a name service that is down keeps its callers for minutes.
        asking = call.side_by_side({portal.address: lambda: host.network.addresses(portal.address)})
        call.wait_until(
            asking.all_ended,
            what=f"addresses of {portal.address}",
            limit_s=_RESOLVE_LIMIT_S,
            event=asking.news,
        )
        outcome = asking.ended().get(portal.address)
    if outcome is None:
        raise exception.TargetPortalNotFound(
            target_portal=portal, reason="The name service does not answer."
        )
    if outcome.error is not None:
        raise outcome.error
    found = [dataclasses.replace(portal, address=address) for address in outcome.value or ()]
    if not found:
        raise exception.TargetPortalNotFound(
            target_portal=portal, reason="The host name has no address."
        )
    used = nvme.find_controllers(host.sysfs, target.nqn, found, None)
    return next((one for one in found if used[one]), found[0])


def _from_here(sysfs: Tree, portal: Portal) -> Iterable[Portal]:
    """Return a Fibre Channel portal once for each port of this host that sees it; for each that is
    online if none does."""
    ports = [
        hba for hba in fc.read_hbas(sysfs, strict=False) if hba.state == fc.ONLINE and hba.port_name
    ]
    wanted = fc.parse_wwn(portal.address.rpartition("pn-")[2])
    seeing = _hosts_that_see(sysfs, wanted or "")
    for hba in [hba for hba in ports if hba.host in seeing] or ports:
        here = f"nn-0x{hba.node_name}:pn-0x{hba.port_name}"
        yield dataclasses.replace(portal, host_address=here)


def _hosts_that_see(sysfs: Tree, wwpn: str) -> set[int]:
    """Return the numbers of this host's ports that see a remote port, whatever it is used for."""
    found = set()
    for name in sysfs.names("class/fc_remote_ports"):
        match = _RPORT.fullmatch(name)
        if match and fc.parse_wwn(sysfs.text("class/fc_remote_ports", name, "port_name")) == wwpn:
            found.add(int(match[1]))
    return found
