# SPDX-License-Identifier: Apache-2.0
"""Using and leaving sessions under their locks, so that nobody's session is logged out
under him."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import iscsi, open_iscsi, scsi, scsi_volume
from os_brick.initiator.linux.call import Call, Outcome
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.iscsi import IscsiPath, Portal, Session, Target
from os_brick.initiator.linux.open_iscsi import Credentials

LOG = logging.getLogger(__name__)

_RESOLVE_LIMIT_S = 30.0
# A log-out that is stopped ends within seconds; one that goes well is soon over.
_OTHER_LOGOUT_S = 130.0
# How long one who has left a target to others sees to it that they leave it in their turn.
_LAST_LOGOUT_S = 300.0


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
            open_iscsi.have_scans_left_to_us(host, call, target)
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
    with contextlib.ExitStack() as held:
        others = 0

        def look() -> str:
            nonlocal others
            if host.locks.taken(target.lock_name, held):
                return "ours"
            others = 0 if _is_being_left(host, target) else others + 1
            # One who only looks whether it is free (see _leave_last) is not there at the next look.
            return "others" if others > 1 else ""

        answer = call.wait_until(look, what=f"another log-out of {target}", limit_s=_OTHER_LOGOUT_S)
        if not answer and not others:
            raise exception.BrickException(
                f"Another log-out of {target} does not end, its session may remain: detach again "
                "later"
            )
        if answer != "ours":
            # He leaves it alone if he fails and it had no disk when he came.
            late = call.later(f"last log-out of {target}", _LAST_LOGOUT_S)
            call.side_by_side({str(target): partial(_leave_last, host, late, target)})
            return False
        with host.locks.held(call, [target.login_lock_name]):
            sessions = iscsi.find_sessions(host.sysfs, target)
            if any(iscsi.is_used(host.sysfs, one) for one in sessions):
                return False
            open_iscsi.log_out(host, call, target, sessions)
            return True


def _leave_last(host: Host, call: Call, target: Target) -> None:
    """Log out of a target when those who are attaching through it have failed, which they may do
    after they had a disk there."""

    def is_over() -> bool:
        sessions = iscsi.find_sessions(host.sysfs, target)
        if not sessions:
            return True
        if any(iscsi.is_used(host.sysfs, one) for one in sessions):
            return False
        with host.locks.tried(target.lock_name) as free:
            return free

    try:
        with contextlib.ExitStack() as alone:
            # One who watches is enough, but he may end before those whom this one has seen.
            over = call.wait_until(
                lambda: host.locks.taken(f"{target.lock_name} last", alone), what="other watchers"
            ) and call.wait_until(is_over, what=f"attaches by {target}")
        if over and iscsi.find_sessions(host.sysfs, target):
            leave(host, call, target)
    except Exception as exc:  # noqa: BLE001 - nobody is left to whom it could be raised
        LOG.warning("There were errors leaving %s, leftovers may remain: %s", target, exc)


def _is_being_left(host: Host, target: Target) -> bool:
    """Tell whether somebody is logging out of a target right now, who may fail: a detach that has
    reached its deadline, for one. Whoever attaches through it only has a shared lock."""
    with host.locks.tried(target.lock_name, shared=True) as free:
        return not free


# -- portals given by name -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Resolved:
    """The ways by which a volume may have come.

    :ivar paths: in the order given; a portal that no address is known of is still a name.
    :ivar trouble: why no address is known of one, and no session to its target tells it either;
        None if all are known.
    """

    paths: tuple[IscsiPath, ...]
    trouble: Exception | None


def resolve_to_attach(host: Host, call: Call, paths: Iterable[IscsiPath]) -> tuple[IscsiPath, ...]:
    """Return the paths with portals' host names replaced by addresses.

    Of several addresses the one that has a session counts, else the first. A path whose name cannot
    be resolved is left out, as one whose portal does not answer.

    :raises TargetPortalNotFound: no path is left; a name has no address.
    :raises OSError: no path is left; the name service could not be asked.
    """
    resolved: dict[IscsiPath, None] = {}
    failures: list[Exception] = []
    for path, answer in _ask_for_addresses(host, call, paths):
        if isinstance(answer, IscsiPath):
            resolved[answer] = None
        else:
            LOG.warning("No path by %s: %s", path, answer)
            failures.append(answer)
    if not resolved:
        raise failures[0]
    return tuple(resolved)


def resolve_to_detach(host: Host, call: Call, paths: Iterable[IscsiPath]) -> Resolved:
    """Return the paths by which a volume may have come, also if names cannot be resolved now.

    Instead of such a portal the sessions to its target count, since under one LUN a target has one
    volume: those that were made with that very name, else all with its port.

    :raises WrongVolume: so it is not with this target.
    """
    paths = tuple(paths)
    found: dict[IscsiPath, None] = {}
    trouble: Exception | None = None
    for path, answer in _ask_for_addresses(host, call, paths):
        if isinstance(answer, IscsiPath):
            found[answer] = None
            continue
        LOG.warning("%s is looked for by its sessions: %s", path, answer)
        by_sessions = _find_by_sessions(host, path, paths)
        if not by_sessions:
            trouble = trouble or answer
        found.update(dict.fromkeys(by_sessions or [path]))
    return Resolved(tuple(found), trouble)


def _find_by_sessions(host: Host, path: IscsiPath, paths: Iterable[IscsiPath]) -> list[IscsiPath]:
    target = path.target
    if iscsi.find_sessions(host.sysfs, target):
        return [path]
    iqn = target.iqn.lower()
    luns = {scsi.plain_lun(one.lun) for one in paths if one.target.iqn.lower() == iqn}
    if len(luns) > 1:
        return []  # the LUN depends on the portal
    sessions = [
        session
        for session in iscsi.read_sessions(host.sysfs, lambda name: name.lower() == iqn)
        if any(portal.port == target.portal.port for portal in session.portals)
    ]
    disks = [iscsi.find_disk(host.sysfs, session, path.lun) for session in sessions]
    scsi_volume.check_same_volume(host, filter(None, disks))
    return [
        dataclasses.replace(path, target=Target(min(session.portals), session.iqn))
        for session in sessions
    ]


def _ask_for_addresses(
    host: Host, call: Call, paths: Iterable[IscsiPath]
) -> list[tuple[IscsiPath, IscsiPath | Exception]]:
    """Return each path with itself by an address, or with why its portal's name has none."""
    paths = tuple(paths)
    answers = _addresses(host, call, [path.target.portal for path in paths])
    resolved: list[tuple[IscsiPath, IscsiPath | Exception]] = []
    for path in paths:
        portal = path.target.portal
        answer = answers.get(portal.host)
        if answer is None:
            resolved.append((path, path))
        elif answer.value:
            resolved.append((path, _with_address(host, path, answer.value)))
        else:
            no_address = exception.TargetPortalNotFound(
                target_portal=portal, reason="The host name has no address."
            )
            resolved.append((path, answer.error or no_address))
    return resolved


def _addresses(host: Host, call: Call, portals: Iterable[Portal]) -> dict[str, Outcome[list[str]]]:
    """Return what the name service says of each portal that is a name."""
    names = list(dict.fromkeys(portal.host for portal in portals if portal.is_name))
    if not names:
        return {}
    what = f"addresses of {', '.join(names)}"
    with call.step(what):
        # In threads: a name service that is down keeps its callers for minutes.
        asking = call.side_by_side({name: partial(host.network.addresses, name) for name in names})
        call.wait_until(
            asking.all_ended, what=what, limit_s=_RESOLVE_LIMIT_S, event=asking.news, told=True
        )
        return asking.outcomes()


def _with_address(host: Host, path: IscsiPath, addresses: Iterable[str]) -> IscsiPath:
    targets = [
        dataclasses.replace(path.target, portal=Portal(address, path.target.portal.port))
        for address in addresses
    ]
    with_session = (one for one in targets if iscsi.find_sessions(host.sysfs, one))
    return dataclasses.replace(path, target=next(with_session, targets[0]))
