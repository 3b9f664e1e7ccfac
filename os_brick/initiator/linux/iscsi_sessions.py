# SPDX-License-Identifier: Apache-2.0
"""Using and leaving sessions under their locks, so that nobody's session is logged out
under him."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from os_brick import exception
from os_brick.initiator.linux import iscsi, open_iscsi
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.iscsi import IscsiPath, Portal, Session, Target
from os_brick.initiator.linux.open_iscsi import Credentials

_RESOLVE_LIMIT_S = 30.0
# A log-out that is stopped ends within seconds; one that goes well is soon over.
_OTHER_LOGOUT_S = 130.0


def get_session(
    host: Host, call: Call, target: Target, chap: Credentials | None, iface: str
) -> tuple[Session, bool]:
    """Return the session to a target through its portal, and whether it was made here.

    The caller holds a shared lock of the session, so that it stays.

    :raises FailedISCSITargetPortalLogin: there is none and none could be made.
    """
    with host.locks.held(call, [target.login_lock_name]):
        # Looked for under the lock: whoever held it before may just have made the session.
        session = logged_in(host, target)
        if session is not None:
            return session, False
        with host.crowds.logins.taken(call, f"turn to log in to {target}"):
            return open_iscsi.log_in(host, call, target, chap, iface), True


def logged_in(host: Host, target: Target) -> Session | None:
    """Return the usable session to a target through its portal, if there is one."""
    sessions = iscsi.find_sessions(host.sysfs, target)
    return next((one for one in sessions if one.state == iscsi.LOGGED_IN), None)


def leave(host: Host, call: Call, target: Target) -> bool:
    """Log out of a target if nobody has a device on it or is attaching through it; tell whether
    done.

    If somebody is attaching through it right now, the session is left to him: the last one out logs
    out.

    :raises BrickException: nobody uses it, but the log-out failed.
    """
    if not call.wait_until(
        lambda: not _is_being_left(host, target),
        what=f"another log-out of {target}",
        limit_s=_OTHER_LOGOUT_S,
    ):
        raise exception.BrickException(
            f"Another log-out of {target} does not end, its session may remain: detach again later"
        )
    with host.locks.tried(target.lock_name) as mine:
        if not mine:
            return False
        with host.locks.held(call, [target.login_lock_name]):
            if any(
                iscsi.is_used(host.sysfs, one) for one in iscsi.find_sessions(host.sysfs, target)
            ):
                return False
            open_iscsi.log_out(host, call, target)
            return True


def _is_being_left(host: Host, target: Target) -> bool:
    """Tell whether somebody is logging out of a target right now, who may fail: a detach that has
    reached its deadline, for one. Whoever attaches through it only has a shared lock."""
    with host.locks.tried(target.lock_name, shared=True) as free:
        return not free


def resolve(host: Host, call: Call, paths: Iterable[IscsiPath]) -> tuple[IscsiPath, ...]:
    """Return the paths with portals' host names replaced by addresses.

    Of several addresses the one that has a session counts, else the first.

    :raises TargetPortalNotFound: a name has no address.
    :raises OSError: the name service could not be asked.
    """
    resolved = []
    for path in paths:
        target = path.target
        if target.portal.is_name:
            portal = _portal_of_name(host, call, target)
            target = dataclasses.replace(target, portal=portal)
        resolved.append(dataclasses.replace(path, target=target))
    return tuple(dict.fromkeys(resolved))


def _portal_of_name(host: Host, call: Call, target: Target) -> Portal:
    name = target.portal.host
    with call.step(f"resolve {name}"):
        # In a thread: a name service that is down keeps its callers for minutes.
        asking = call.side_by_side({name: lambda: host.network.addresses(name)})
        call.wait_until(
            asking.all_ended,
            what=f"addresses of {name}",
            limit_s=_RESOLVE_LIMIT_S,
            event=asking.news,
        )
        outcome = asking.outcomes()[name]
    if outcome.error is not None:
        raise outcome.error
    portals = [Portal(address, target.portal.port) for address in outcome.value or ()]
    if not portals:
        raise exception.TargetPortalNotFound(
            target_portal=target.portal, reason="The host name has no address."
        )
    with_session = (
        portal
        for portal in portals
        if iscsi.find_sessions(host.sysfs, dataclasses.replace(target, portal=portal))
    )
    return next(with_session, portals[0])
