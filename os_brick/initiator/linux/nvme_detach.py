# SPDX-License-Identifier: Apache-2.0
"""The way of a namespace's detach, once it is known what of it is on this host."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from oslo_concurrency import processutils
from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import (
    block,
    multipath,
    nvme_connections,
    nvme_namespaces,
    udev,
    usage,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.nvme import Controller
from os_brick.initiator.linux.nvme_changes import FAILURES
from os_brick.initiator.linux.nvme_connections import Way
from os_brick.initiator.linux.nvme_namespaces import Namespace
from os_brick.initiator.linux.nvme_presence import Presence

LOG = logging.getLogger(__name__)

_HEAD_GONE_S = 15.0
_MAP_GONE_S = 10.0
_UDEV_S = 4.0
# How long a path that has just come up is waited for by its detach.
_LATE_S = 5.0


def detach(
    host: Host,
    call: Call,
    presences: Sequence[Presence],
    *,
    force: bool,
    errors: exception.ExceptionChainer,
    flush_limit_s: float,
    flush: bool = True,
) -> None:
    """Take namespaces away from the host: refuse if used, write out, disconnect what nobody else
    uses. The caller holds the volume's lock.

    :param errors: with ``force``, what failed; everything was attempted then.
    :param flush: False if nobody can have written to them.
    :raises DeviceInUse: somebody uses one (without ``force``); nothing was changed.
    :raises WrongVolume: one is another volume by now (without ``force``); nothing was changed.
    :raises ProcessExecutionError: its data is not known to be on the storage (without ``force``).
    """
    heads = [head for presence in presences for head in presence.heads]
    if not force:
        usage.refuse_if_used(host, call, heads)
    wrong = find_wrong(host, call, presences, force=force, errors=errors) if flush else set()
    for presence in presences if flush else ():
        for head in presence.heads:
            if head in wrong:
                # Whatever is still in memory must not reach the other volume; it goes with the
                # disk.
                continue
            with errors.context(force, "Writing out %s failed, its data may be lost", head):
                _flush(host, call, presence, head, force, flush_limit_s)
    for presence in presences:
        for head in presence.heads:
            with errors.context(force, "Removing the map over %s failed", head):
                _remove_map(host, call, presence, head, flush_limit_s)
    _disconnect_all(host, call, presences, force, errors)


def find_wrong(
    host: Host,
    call: Call,
    presences: Sequence[Presence],
    *,
    force: bool,
    errors: exception.ExceptionChainer,
) -> set[str]:
    """Return the kernel names of disks that are other volumes by now, to which nothing must be
    written.

    :param errors: with ``force``, which volumes are concerned.
    :raises WrongVolume: there are any (without ``force``); nothing was changed.
    """
    found: set[str] = set()
    for presence in presences:
        wrong = _find_wrong_volume(host, call, presence)
        if wrong is not None:
            with errors.context(force, "Nothing is written to %s", ", ".join(presence.heads)):
                raise wrong
            found.update(presence.heads)
    return found


def _remove_map(host: Host, call: Call, presence: Presence, head: str, limit_s: float) -> None:
    """Remove the map that multipathd has made over a disk, where there is no native multipath.

    Nobody was given it, but it would stay behind, and keep the disk.

    :raises DeviceInUse: somebody uses it.
    """
    one = multipath.find_map_on(host.sysfs, head)
    if one is None:
        return
    # Looked at afterwards, so that it is no later disk of the same name that it is on.
    paths = [path for path in presence.namespaces if path.head == head]
    if not any(nvme_namespaces.is_shown(host.sysfs, path) for path in paths):
        return
    result = multipath.remove_map(host, call, one.label, limit_s)
    call.wait_until(
        lambda: not multipath.is_there(host.sysfs, one),
        what=f"removal of {one}",
        limit_s=_MAP_GONE_S,
    )
    if multipath.is_there(host.sysfs, one):
        users = "; ".join(block.read_users(host, one.name)) or result.summary
        raise exception.DeviceInUse(device=str(one), users=users)


def _find_wrong_volume(host: Host, call: Call, presence: Presence) -> exception.WrongVolume | None:
    """Return what is wrong if data would be written to another volume than it was written for.

    A controller that does not answer is no danger: nothing reaches anybody by it.
    """
    live = [one for one in presence.namespaces if nvme_namespaces.is_accessible(host.sysfs, one)]
    for one in live:
        try:
            says = host.nvme.describe(call, one.controller, one.ids.nsid or 0)
        except FAILURES as exc:
            LOG.debug("%s could not be asked who %s is: %s", one.controller, one.head, exc)
            continue
        if says is None or one.ids.fits(says) is not False:
            return None
        return exception.WrongVolume(
            device=one.path,
            reason=f"It was {one.ids} and is {says} now: the subsystem gave its number to "
            "another volume. Its data was not written; detach with force to remove it.",
        )
    return None


def _flush(
    host: Host, call: Call, presence: Presence, head: str, force: bool, limit_s: float
) -> None:
    """Write the data out and have it confirmed.

    With ``force`` and no path to write by it is not tried: with the loss timeout of our connects
    it would wait until the limit.
    """
    if force and not _has_usable_path(host, head):
        raise processutils.ProcessExecutionError(
            cmd=f"sync /dev/{head}", description=f"No path to {head} can be used to write it out."
        )
    # The name may be a later disk's when the program comes to open it, of which nothing is dirty.
    instance = host.sysfs.instance("block", head)
    shown = nvme_namespaces.read_ids_of_head(host.sysfs, head)
    if shown and any(one.ids.fits(shown) is not False for one in presence.namespaces):
        block.sync(host, call, f"/dev/{head}", limit_s)
        if host.sysfs.instance("block", head) == instance:
            return
    raise processutils.ProcessExecutionError(
        cmd=f"sync /dev/{head}", description=f"{head} was taken away before it was written out."
    )


def _has_usable_path(host: Host, head: str) -> bool:
    paths = nvme_namespaces.paths_of(host.sysfs, head)
    return any(nvme_namespaces.is_accessible(host.sysfs, one) for one in paths)


def _disconnect_all(
    host: Host,
    call: Call,
    presences: Sequence[Presence],
    force: bool,
    errors: exception.ExceptionChainer,
) -> None:
    """Disconnect, side by side, the controllers on which nobody else has anything, and wait until
    the disks that have gone with them are gone for all."""
    disks = {
        head: (host.sysfs.instance("block", head), host.sysfs.text("block", head, "dev"))
        for presence in presences
        for head in presence.heads
    }

    def is_ours(one: Namespace) -> bool:
        return any(
            presence.is_ours(one)
            for presence in presences
            if presence.target.nqn == one.controller.nqn
        )

    # Legs of an array may be of one subsystem.
    wanted = {pair: False for presence in presences for pair in presence.controllers}
    known: set[Controller] = set()
    while wanted:
        known.update(controller for _way, controller in wanted)
        tasks = {
            f"{controller} by {way}": partial(
                _leave, host, call, way, controller, is_ours, is_late=is_late
            )
            for (way, controller), is_late in wanted.items()
        }
        outcomes = call.each(tasks, what="disconnects")
        failures = {name: end.error for name, end in outcomes.items() if end.error is not None}
        for name, failure in failures.items():
            with errors.context(True, "Disconnecting %s failed", name):
                raise failure
        if failures and not force:
            raise next(iter(failures.values()))
        if not all(outcome.value for outcome in outcomes.values()):
            return
        wanted = dict.fromkeys(_late_ones(host, presences, disks, known), True)
    if known:
        _wait_until_gone(host, call, disks)


def _leave(
    host: Host,
    call: Call,
    way: Way,
    controller: Controller,
    is_ours: Callable[[Namespace], bool],
    *,
    is_late: bool,
) -> bool:
    if is_late:
        # Its thread may not have noticed yet that the namespace is there.
        with host.locks.held_if_soon(call, [way.lock_name], _LATE_S):
            pass
    return nvme_connections.leave(host, call, way, controller, is_ours)


def _late_ones(
    host: Host,
    presences: Sequence[Presence],
    disks: Mapping[str, tuple[int | None, str]],
    known: Collection[Controller],
) -> list[tuple[Way, Controller]]:
    """Return the controllers by which disks are still here though all that were known are gone.

    A path of the attach has come up meanwhile, and takes the volume for attached as its disk is
    there.
    """
    found = []
    for presence in presences:
        there = [
            head
            for head in presence.heads
            if disks[head][0] is not None and host.sysfs.instance("block", head) == disks[head][0]
        ]
        for way in presence.ways if there else ():
            for controller in nvme_connections.find(host, way):
                shown = nvme_namespaces.read_namespaces(host.sysfs, controller)
                late = any(one.head in there and presence.is_ours(one) for one in shown)
                if late and controller not in known:
                    found.append((way.of(controller), controller))
    return found


def _wait_until_gone(host: Host, call: Call, disks: dict[str, tuple[int | None, str]]) -> None:
    """Return when no disk is left that lost its last controller, and udev knows; a disk that others
    have connected too stays."""

    def left() -> list[str]:
        return [
            head
            for head, (instance, _number) in disks.items()
            if instance is not None
            and host.sysfs.instance("block", head) == instance
            and not nvme_namespaces.paths_of(host.sysfs, head)
        ]

    call.wait_until(lambda: not left(), what="end of the disks", limit_s=_HEAD_GONE_S)
    gone = [
        number
        for head, (instance, number) in disks.items()
        if number and host.sysfs.instance("block", head) != instance
    ]
    call.wait_until(
        lambda: not any(udev.knows_removed(host, number) for number in gone),
        what="udev",
        limit_s=_UDEV_S,
    )
    remaining = left()
    if remaining:
        raise exception.VolumePathNotRemoved(
            volume_path=", ".join(f"/dev/{head}" for head in remaining),
            reason="Its controllers are disconnected, somebody holds it open.",
        )
