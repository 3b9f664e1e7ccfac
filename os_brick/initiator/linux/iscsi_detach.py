# SPDX-License-Identifier: Apache-2.0
"""The way of an iSCSI volume's detach, once it is known what of it is here."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import iscsi_sessions, scsi_removal
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.iscsi import IscsiPath, Target
from os_brick.initiator.linux.iscsi_presence import Presence

LOG = logging.getLogger(__name__)

# A log-in under way ends within seconds where the portal answers, and is taken back then.
_LATE_PATHS_S = 10.0


def detach(
    host: Host,
    call: Call,
    presence: Presence,
    *,
    path_used: str | None,
    force: bool,
    errors: exception.ExceptionChainer,
    flush_limit_s: float,
) -> None:
    """Take a volume away from the host; the caller holds the volume's lock.

    :param errors: with ``force``, what failed; everything was attempted then.
    :raises BrickException: without ``force``, the first failure; what comes after it is in place.
    """
    scsi_removal.detach(
        host,
        call,
        scsi_removal.plan(host, presence.disks, path_used, presence.maps),
        partial(_leave_targets, host, call, presence.targets, force, errors),
        force=force,
        errors=errors,
        flush_limit_s=flush_limit_s,
    )


def wait_for_late_paths(host: Host, call: Call, paths: Iterable[IscsiPath]) -> None:
    """Return when no attach is at any of a volume's paths any more: with the volume gone, it takes
    back what it has just logged in to. One that takes long does so without us.

    The caller holds the volume's lock.
    """

    def busy() -> list[IscsiPath]:
        found = []
        for path in dict.fromkeys(paths):
            # The second is held by paths that a discovery has found, of which we do not know.
            for name in (path.lock_name, path.late_lock_name):
                with host.locks.tried(name) as free:
                    if not free:
                        found.append(path)
        return found

    if not call.wait_until(lambda: not busy(), what="paths under way", limit_s=_LATE_PATHS_S):
        LOG.warning(
            "An attach is still at %s; what comes of it is taken away by its own thread",
            ", ".join(map(str, busy())),
        )


def _leave_targets(
    host: Host,
    call: Call,
    targets: tuple[Target, ...],
    force: bool,
    errors: exception.ExceptionChainer,
) -> None:
    """Log out side by side of the targets that nobody uses, and remove their records."""
    outcomes = call.each(
        {str(target): partial(iscsi_sessions.leave, host, call, target) for target in targets},
        what="log-outs",
    )
    for name, outcome in outcomes.items():
        if outcome.error is not None:
            with errors.context(force, "Leaving %s failed", name):
                raise outcome.error
