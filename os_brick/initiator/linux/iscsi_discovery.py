# SPDX-License-Identifier: Apache-2.0
"""Finding all targets of an array by SendTargets, and what an earlier discovery found.

Discovery is needed only for multipath when the caller names a single target. It leaves no records
behind; those that are read at a detach are of earlier versions of this library, or of others.
"""

from __future__ import annotations

from collections.abc import Iterable

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.iscsi import IscsiPath, Portal, Target
from os_brick.initiator.linux.iscsi_volume import IscsiVolume
from os_brick.initiator.linux.open_iscsi import NOT_FOUND, Credentials, explain
from os_brick.initiator.linux.programs import Result

LOG = logging.getLogger(__name__)

_LIMIT_S = 180.0
_NO_RECORD = 6
_NAME_FORMS = ("iqn.", "eui.", "naa.")


def discover(host: Host, call: Call, volume: IscsiVolume, iface: str) -> tuple[IscsiPath, ...]:
    """Return all paths to a volume of which one target is known, by asking its portal.

    :param iface: ``default`` or ``iser``.
    :raises TargetPortalNotFound: the portal could not be asked; says why.
    """
    portal = volume.main.target.portal
    with call.step(f"discover by {portal}"):
        targets = _send_targets(host, call, portal, volume.discovery_chap, iface)
    return choose_paths(volume, targets)


def choose_paths(volume: IscsiVolume, targets: Iterable[Target]) -> tuple[IscsiPath, ...]:
    """Return the paths among discovered targets that can lead to the volume, those by the given
    name first.

    If every discovered portal also has the known target, the array shares one name over its
    portals: only that name is used, not those of other volumes (bug 1382440). Otherwise each portal
    may have its own; which of the others are the volume is known when they have given a disk.
    """
    targets = list(dict.fromkeys(targets))
    iqn = volume.main.target.iqn.lower()
    named = [target for target in targets if target.iqn.lower() == iqn]
    shared = {target.portal for target in targets} <= {target.portal for target in named}
    others = [] if shared else [target for target in targets if target not in named]
    chosen = [*(named or [volume.main.target]), *others]
    return tuple(IscsiPath(target, volume.main.lun) for target in chosen)


def _send_targets(
    host: Host, call: Call, portal: Portal, chap: Credentials | None, iface: str
) -> list[Target]:
    where = ("-t", "sendtargets", "-I", iface, "-p", str(portal))
    # Otherwise it would make node records of all targets of the array, and reset the startup modes
    # of those that are there (bugs 1670237, 1756206).
    without_trace = ("--op", "nonpersistent")

    def run(mode: str, *words: str, shown: int = 0) -> Result:
        line = ("iscsiadm", "-m", mode, *where)
        return host.programs.run(
            call, *line, *words, limit_s=_LIMIT_S, shown=len(line) + shown if shown else 0
        )

    def run_by_record(chap: Credentials) -> Result:
        made = False
        try:
            result = run("discoverydb", "--op", "update", *_values(chap), shown=2)
            if result.code == _NO_RECORD:
                made = run("discoverydb", "--op", "new").code == 0
                result = run("discoverydb", "--op", "update", *_values(chap), shown=2)
            if result.code == 0:
                result = run("discoverydb", "--discover", *without_trace)
            return result
        finally:
            if made:
                run("discoverydb", "--op", "delete")

    if chap is None:
        result = run("discovery", *without_trace)
    else:
        # Credentials are taken from a discovery record only, of which a portal has one: whoever
        # made it takes it away again, and others have others' credentials.
        with host.locks.held(call, [f"iscsi discovery {portal}"]):
            result = run_by_record(chap)
    targets = parse_targets(result.out)
    # 255 is what very old versions answer to many things; then what they printed counts.
    if result.code == 0 or (result.code == 255 and targets):
        return targets
    # Without the original error: its command may hold the secret.
    raise exception.TargetPortalNotFound(target_portal=portal, reason=f"{explain(result)}.")


def _values(chap: Credentials) -> tuple[str, ...]:
    name = "discovery.sendtargets.auth."
    pairs = {"authmethod": chap.method, "username": chap.username, "password": chap.password}
    return tuple(word for key, value in pairs.items() for word in ("-n", name + key, "-v", value))


def parse_targets(text: str) -> list[Target]:
    """Return the targets in lines ``ip:port,tpgt iqn``; all other lines (debug output) are
    skipped."""
    targets = []
    for line in text.splitlines():
        words = line.split()
        if len(words) != 2 or not words[1].startswith(_NAME_FORMS):
            continue
        try:
            targets.append(Target(Portal.parse(words[0]), words[1]))
        except exception.InvalidParameterValue:
            LOG.debug("Skipped %r in a discovery's answer", line)
    return targets


# -- what an earlier discovery found ---------------------------------------------------------
def read_discovered(host: Host, call: Call, portal: Portal, iface: str) -> list[Target]:
    """Return the targets that open-iscsi remembers from discoveries of a portal; asks no array."""
    result = host.programs.run(
        call, "iscsiadm", "-m", "discoverydb", "-o", "show", "-P", "1", limit_s=_LIMIT_S
    )
    if result.code not in (0, NOT_FOUND):
        raise exception.TargetPortalNotFound(target_portal=portal, reason=f"{explain(result)}.")
    return parse_discoverydb(result.out, portal, iface)


def parse_discoverydb(text: str, portal: Portal, iface: str) -> list[Target]:
    """Return the targets listed below a portal's ``DiscoveryAddress`` with interface ``iface``."""
    targets: list[Target] = []
    ours, iqn, last = False, "", None
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "DiscoveryAddress":
            ours = _discovery_portal(value) == portal
        elif not line[:1].isspace() and key != "Target":
            ours = False  # iSNS:, STATIC: … are other sections
        elif not ours:
            continue
        elif key == "Target":
            iqn = value
        elif key == "Portal":
            try:
                last = Target(Portal.parse(value), iqn)
            except exception.InvalidParameterValue:
                last = None
        elif key == "Iface Name" and value == iface and last is not None:
            targets.append(last)
    return list(dict.fromkeys(targets))


def _discovery_portal(text: str) -> Portal | None:
    """Return the portal of ``ip,port``; the brackets of an IPv6 address are optional there."""
    host, _, port = text.rpartition(",")
    host = host.strip("[]")
    try:
        return Portal.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except exception.InvalidParameterValue:
        return None
