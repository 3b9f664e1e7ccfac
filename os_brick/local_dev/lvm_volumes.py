# SPDX-License-Identifier: Apache-2.0
"""What is done with one volume: make, snapshot, activate, extend, delete.

Functions here run within a call and under the locks of their caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oslo_concurrency import processutils
from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import block
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.programs import Result
from os_brick.local_dev import lvm_mappings, lvm_sizes
from os_brick.local_dev.lvm_reports import LogicalVolume
from os_brick.local_dev.lvm_tools import Making, Tools

LOG = logging.getLogger(__name__)

# A failed snapshot or removal is tried again after these pauses.
_PAUSES_S = (1.0, 2.0)
# Looks 1, 2, 4 and 8 seconds apart is what callers are used to wait for a deactivation.
_DEACTIVATION_LIMIT_S = 15.0
_SUSPENDED_LIMIT_S = 10.0
# What was deactivated is activated again, also when the call's time is over.
_ACTIVATION_LIMIT_S = 60.0
_SETTLE_LIMIT_S = 130.0

# What lvcreate is told if it asks. Without an answer it makes no volume where it finds a signature
# that a volume of others left on the disks long ago.
_YES = "y\n" * 20
# LVM 2.03 makes no mirror whose log is itself mirrored, unless its configuration says so.
_REFUSED_LOG = 'Log type "mirrored" is DEPRECATED'
# How LVM ends if it does not take its options together.
_INVALID_OPTIONS = 3

_RETRY_DEACTIVATION = "activation { retry_deactivation = 1} "
_IGNORE_SUSPENDED = "devices { ignore_suspended_devices = 1}"


@dataclass(frozen=True)
class Place:
    """A volume's place: its group and its name there."""

    group: str
    name: str

    @property
    def path(self) -> str:
        """What LVM calls it: ``group/name``."""
        return f"{self.group}/{self.name}"


def log_failure(what: str, exc: processutils.ProcessExecutionError) -> None:
    """Log all that is known of a failed command."""
    LOG.error("%s", what)
    LOG.error("Cmd     :%s", exc.cmd)
    LOG.error("StdOut  :%s", exc.stdout)
    LOG.error("StdErr  :%s", exc.stderr)


def checked(result: Result, what: str) -> Result:
    """Return the result of a program that succeeded.

    :raises ProcessExecutionError: it failed; logged in full.
    """
    try:
        return result.check()
    except processutils.ProcessExecutionError as exc:
        log_failure(what, exc)
        raise


# -- active or not ---------------------------------------------------------------------------
def activate(tools: Tools, call: Call, place: Place, *, permanent: bool = False) -> None:
    """Have the kernel map a volume; one that is mapped stays so.

    :param permanent: also clear the flag by which it would be left out at the next boot.
    :raises ProcessExecutionError: LVM could not do it.
    """
    # --yes: activating a snapshot asks about its origin too. -K: ignore the flag that leaves
    # snapshots out, without which they have no device (bug 1702322).
    words = ["lvchange", "-a", "y", "--yes", "-K"]
    result = _change(tools, call, place, [*words, "-k", "n"] if permanent else words)
    if permanent and result.code == _INVALID_OPTIONS:
        # LVM 2.03 does not take -K and -k together.
        clearing = tools.run_patiently(call, "lvchange", "-k", "n", place.path)
        checked(clearing, f"Error changing LV {place.path}")
        result = _change(tools, call, place, words)
    checked(result, f"Error activating LV {place.path}")


def _change(tools: Tools, call: Call, place: Place, words: list[str]) -> Result:
    """Run ``lvchange`` for a volume, again if it meets a suspended volume of its group."""
    result = tools.run_patiently(call, *words, place.path)
    for _again in _PAUSES_S:
        if result.code == 0 or not _was_suspended(tools, place, result):
            break
        # Somebody is changing the pool, for example to make a snapshot (bug 1642111).
        call.wait_until(
            lambda: not lvm_mappings.any_suspended(tools.host.sysfs, place.group),
            what=f"no suspended volumes in {place.group}",
            limit_s=_SUSPENDED_LIMIT_S,
        )
        result = tools.run_patiently(call, *words, place.path)
    return result


def _was_suspended(tools: Tools, place: Place, result: Result) -> bool:
    # It may be over by now: then only LVM's words tell. In another language they cost a retry.
    return "suspended" in result.err or lvm_mappings.any_suspended(tools.host.sysfs, place.group)


def deactivate(tools: Tools, call: Call, place: Place) -> None:
    """Have the kernel let go of a volume, and wait until it has.

    :raises ProcessExecutionError: LVM could not do it, as when the volume is in use.
    :raises VolumeNotDeactivated: LVM says that it did, and it is still there.
    """
    result = tools.run_patiently(call, "lvchange", "-a", "n", place.path)
    checked(result, f"Error deactivating LV {place.path}")
    wait_until_inactive(tools, call, place)


def wait_until_inactive(tools: Tools, call: Call, place: Place) -> None:
    """Wait until the kernel has let go of a volume.

    :raises VolumeNotDeactivated: it has not in time.
    """
    sysfs = tools.host.sysfs
    gone = call.wait_until(
        lambda: lvm_mappings.find(sysfs, place.group, place.name) is None,
        what=f"{place.path} to be inactive",
        limit_s=_DEACTIVATION_LIMIT_S,
    )
    if not gone:
        raise exception.VolumeNotDeactivated(name=place.name)


# -- making ----------------------------------------------------------------------------------
def create(tools: Tools, call: Call, place: Place, words: list[str]) -> None:
    """Make a volume or pool.

    :param words: the command.
    :raises ProcessExecutionError: LVM could not do it.
    """
    making = Making(tools, call, place.group, place.name)
    crashed_when_made = False

    def is_made() -> bool:
        nonlocal crashed_when_made
        crashed_when_made = making.made() is not None
        return crashed_when_made

    result = tools.run_patiently(call, *tools.prefix, *words, done=is_made, stdin=_YES)
    if result.code and _REFUSED_LOG in result.err:
        LOG.debug("This LVM makes no mirrored log for %s, the log goes to one disk", place.path)
        log = words.index("--mirrorlog") + 1
        words = [*words[:log], "disk", *words[log + 1 :]]
        result = tools.run_patiently(call, *tools.prefix, *words, done=is_made, stdin=_YES)
    checked(result, f"Error creating volume {place.path}")
    if crashed_when_made:
        activate(tools, call, place)  # what lvcreate does last


def create_snapshot(
    tools: Tools, call: Call, place: Place, source_name: str, *, thin: bool
) -> None:
    """Make a snapshot; a failure is tried again, twice, as it may be another's lock or a crash.

    :raises VolumeDeviceNotFound: there is no such source.
    :raises ProcessExecutionError: LVM could not do it.
    """
    making = Making(tools, call, place.group, place.name)
    existed = None
    for pause_s in (*_PAUSES_S, None):
        names = (source_name, place.name)
        found = {one.name: one for one in tools.find_volumes(call, place.group, *names)}
        source = found.get(source_name)
        if source is None:
            LOG.error("Trying to create snapshot by non-existent LV: %s", source_name)
            raise exception.VolumeDeviceNotFound(device=source_name)
        if existed is None:
            existed = place.name in found
        elif _is_new_snapshot(making, found.get(place.name), source_name):
            return
        # -k y: whether a snapshot is left out when its group is activated differs by distribution.
        words = ["lvcreate", "--name", place.name, "-k", "y", "--snapshot"]
        words.append(f"{place.group}/{source_name}")
        if not thin:
            words += ["-L", f"{lvm_sizes.gib_text(source.size)}g"]
        result = tools.run_patiently(
            call,
            *tools.prefix,
            *words,
            done=lambda: _is_new_snapshot(making, making.made(), source_name),
            stdin=_YES,
        )
        if result.code == 0 or existed or pause_s is None:
            break
        LOG.warning("Creating snapshot %s failed, looking again: %s", place.path, result.summary)
        call.pause(pause_s)
    checked(result, f"Error creating snapshot {place.path}")


def _is_new_snapshot(making: Making, volume: LogicalVolume | None, source_name: str) -> bool:
    """Tell whether a volume is the snapshot that was to be made, and was not there before."""
    return volume is not None and making.is_new(volume) and volume.origin == source_name


# -- changing --------------------------------------------------------------------------------
def extend(tools: Tools, call: Call, place: Place, new_size: str) -> None:
    """Make a volume larger. One with thick snapshots is inactive meanwhile, as LVM wants it.

    :raises InvalidParameterValue: the size is none.
    :raises ProcessExecutionError: LVM could not do it, as when a volume with thick snapshots is in
        use; its size is as it was.
    """
    lvm_sizes.requested_bytes(new_size)
    volume = tools.find_volume(call, place.group, place.name)
    was_active = lvm_mappings.find(tools.host.sysfs, place.group, place.name) is not None
    if volume is None or not volume.has_thick_snapshots or not was_active:
        checked(_extend(tools, call, place, new_size, volume), _extending(place))
        return
    try:
        # It may be inactive though this failed: stopped at its limit while it waited for udev.
        deactivate(tools, call, place)
        checked(_extend(tools, call, place, new_size, volume), _extending(place))
    except Exception:
        try:
            activate(tools, call.later(call.operation, _ACTIVATION_LIMIT_S), place)
        except Exception:
            LOG.exception("%s was left inactive", place.path)
        raise
    activate(tools, call.later(call.operation, _ACTIVATION_LIMIT_S), place)


def _extending(place: Place) -> str:
    return f"Error extending Volume {place.path}"


def _extend(
    tools: Tools, call: Call, place: Place, new_size: str, volume: LogicalVolume | None
) -> Result:
    wanted = lvm_sizes.requested_bytes(new_size, volume.size if volume else 0)
    crashed_when_done = False

    def is_done() -> bool:
        nonlocal crashed_when_done
        now = tools.find_volume(call, place.group, place.name)
        done = now is not None and volume is not None and volume.size < wanted <= now.size
        crashed_when_done = done
        return done

    words = ("lvextend", "-L", new_size, place.path)
    result = tools.run_patiently(call, *tools.prefix, *words, done=is_done)
    if crashed_when_done and not _is_up_to_date(tools, place, wanted):
        # What lvextend does last: the kernel has not heard of it, or holds all I/O meanwhile.
        return tools.run_patiently(call, "lvchange", "--refresh", place.path)
    return result


def _is_up_to_date(tools: Tools, place: Place, size: int) -> bool:
    """Tell whether the kernel's mapping of a volume, if it is active, has a size and is usable."""
    sysfs = tools.host.sysfs
    name = lvm_mappings.find(sysfs, place.group, place.name)
    if name is None:
        return True
    suspended = lvm_mappings.any_suspended(sysfs, place.group)
    return (block.read_size(sysfs, name) or 0) >= size and not suspended


def delete(tools: Tools, call: Call, place: Place) -> None:
    """Remove a volume, its thick snapshots included.

    A failure is tried again, twice, unless the reason cannot go away by itself.

    :raises ProcessExecutionError: LVM could not do it, as when the volume is mounted.
    """

    def is_gone() -> bool:
        return tools.find_volume(call, place.group, place.name) is None

    existed = False
    for pause_s in (*_PAUSES_S, None):
        result = _remove(tools, call, place, _RETRY_DEACTIVATION, is_gone)
        if result.code == 0:
            return
        LOG.debug("Error reported running lvremove: %s", result.summary)
        if _is_settled(tools, call, place, existed, result):
            return
        existed = True
        # udev may be looking into the volume. What a failed removal leaves suspended would block
        # every later command on its group (bug 1270192).
        tools.run(call, "udevadm", "settle", limit_s=_SETTLE_LIMIT_S)
        LOG.debug("Attempting removal of %s again", place.path)
        result = _remove(tools, call, place, _RETRY_DEACTIVATION + _IGNORE_SUSPENDED, is_gone)
        if result.code == 0 or _is_settled(tools, call, place, existed, result):
            return
        if pause_s is None or lvm_mappings.is_open(tools.host, call, place.group, place.name):
            break
        call.pause(pause_s)
    checked(result, f"Error removing LV {place.path}")


def _remove(
    tools: Tools, call: Call, place: Place, config: str, is_gone: Callable[[], bool]
) -> Result:
    words = ("lvremove", "--config", config, "-f", place.path)
    return tools.run_patiently(call, *words, done=is_gone)


def _is_settled(tools: Tools, call: Call, place: Place, existed: bool, result: Result) -> bool:
    """Tell whether a removal that failed has done its work all the same.

    :param existed: whether the volume was there after an earlier attempt.
    :raises ProcessExecutionError: trying again is of no use.
    """
    users = lvm_mappings.users(tools.host, place.group, place.name)
    if users:
        checked(result, f"Error removing LV {place.path}: {'; '.join(users)}")
    if tools.find_volume(call, place.group, place.name) is not None:
        return False
    if existed or result.code is None:
        return True
    checked(result, f"Error removing LV {place.path}: there is no such volume")
    return True
