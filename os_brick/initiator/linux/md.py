# SPDX-License-Identifier: Apache-2.0
"""md RAID 1 over disks: what sysfs shows of arrays, and ``mdadm`` to make, start and stop them.

An array is ``md<N>`` with its members as ``slaves``; its name is a link ``/dev/md/<name>``, made by
udev or by mdadm itself. See md(4) and mdadm(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import nodes, udev
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.programs import Result
from os_brick.initiator.linux.sysfs import Tree

LOG = logging.getLogger(__name__)

FOLDER = "/dev/md/"
_LIMIT_S = 120.0
_NODE_S = 60.0
_GONE_S = 15.0
_STOP_TRIES = 5
_STOP_PAUSE_S = 0.5
_UDEV_S = 4.0
_EMPTY_S = 2.0
_EMPTY_TRIES = 3
# blkid(8): 2 if nothing was recognised, 8 if several things were.
_NOTHING_RECOGNISED = 2
_AMBIVALENT = 8
_MEMBER = "linux_raid_member"
_NO_MEMBER = "No md superblock detected"
_WORD = re.compile(r"[\w/-]+")


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a member says of its array.

    :ivar uuid: of the array.
    :ivar events: how much the array had seen when the member was last written.
    :ivar role: its place in the array; None if it is not told, or it is a spare.
    :ivar state: of each place, as the member knows it: ``A`` active, ``.`` missing.
    """

    disk: str
    uuid: str
    events: int
    role: int | None = None
    state: str = ""

    def misses(self, other: Superblock) -> bool:
        """Tell whether it says that the array goes without another member."""
        return other.role is not None and self.state[other.role : other.role + 1] == "."


# -- sysfs -----------------------------------------------------------------------------------
def find_array(sysfs: Tree, disks: Iterable[str]) -> list[str]:
    """Return the kernel names of the arrays that have any of some disks as members."""
    found: dict[str, None] = {}
    for disk in disks:
        # By its class: a partition has no folder of its own below /sys/block.
        for holder in sysfs.names("class/block", disk, "holders"):
            if sysfs.exists("block", holder, "md"):
                found[holder] = None
    return list(found)


def members_of(sysfs: Tree, array: str) -> list[str]:
    """Return the kernel names of an array's members."""
    return sysfs.names("block", array, "slaves")


def is_running(sysfs: Tree, array: str) -> bool:
    """Tell whether an array takes I/O (kernel: ``array_state``, Documentation/admin-guide/md)."""
    return sysfs.text("block", array, "md/array_state") not in ("", "clear", "inactive")


def find_in_mdstat(text: str, disk: str) -> str | None:
    """Return the array in ``/proc/mdstat`` that has a disk as a member; None if there is none.

    Names are compared whole: ``nvme1n1`` is no member of an array of ``nvme1n10``.
    """
    for line in text.splitlines():
        array, colon, members = line.partition(" : ")
        if colon and disk in _WORD.findall(members):
            return array.strip()
    return None


# -- mdadm -----------------------------------------------------------------------------------
def run(host: Host, call: Call, *words: str) -> Result:
    """Run ``mdadm`` and return how it ended."""
    return host.programs.run(call, "mdadm", *words, limit_s=_LIMIT_S)


def examine(host: Host, call: Call, disk: str) -> Superblock | None:
    """Return what a disk says of the array that it is a member of; None if it is none.

    :raises ProcessExecutionError: mdadm could not look at it.
    :raises BrickException: mdadm said something else.
    """
    result = run(host, call, "--examine", f"/dev/{disk}")
    # Only these words say that it has looked: whatever else fails ends with 1 too.
    if _says_no_member(result):
        # It says so too of what it could not read (load_super1 without a name tells no error), and
        # blkid calls that "nothing recognised".
        _check_readable(host, call, disk)
        result = run(host, call, "--examine", f"/dev/{disk}")
        if _says_no_member(result):
            return None
    lines = result.check().out.strip().splitlines()
    if not lines or lines[0].strip() != f"/dev/{disk}:":
        raise exception.BrickException(
            f"mdadm does not say whether /dev/{disk} is a member of an array: {result.out!r:.200}"
        )
    return parse_examined(disk, result.out)


def _says_no_member(result: Result) -> bool:
    return result.code == 1 and _NO_MEMBER in f"{result.err}\n{result.out}"


def _check_readable(host: Host, call: Call, disk: str) -> None:
    """Raise ProcessExecutionError if the place of superblocks cannot be read from the storage."""
    words = ("dd", f"if=/dev/{disk}", "of=/dev/null", "bs=1M", "count=1", "iflag=direct")
    host.programs.run(call, *words, limit_s=_LIMIT_S).check()


def parse_examined(disk: str, text: str) -> Superblock | None:
    """Return the superblock that ``mdadm --examine`` prints: the disk's path and a colon, then
    lines ``Name : value``. None for anything else, such as a partition table."""
    lines = text.strip().splitlines()
    if not lines or lines[0].strip() != f"/dev/{disk}:":
        return None
    told = {}
    for line in lines[1:]:
        name, colon, value = line.partition(" : ")
        if colon:
            told[name.strip()] = value.strip()
    if "Magic" not in told:
        return None
    events = told.get("Events", "").rpartition(".")[2]
    role = told.get("Device Role", "").rpartition("Active device ")[2]
    return Superblock(
        disk,
        told.get("Array UUID", "").split(" ")[0],
        int(events) if events.isdecimal() else 0,
        int(role) if role.isdecimal() else None,
        # "A. ('A' == active, '.' == missing, 'R' == replacing)"
        told.get("Array State", "").split(" ")[0],
    )


def signature_of(host: Host, call: Call, disk: str) -> str:
    """Return what a disk carries, as blkid sees it: ``linux_raid_member``, ``ext4``, ``gpt`` …;
    empty if it recognises nothing.

    :raises ProcessExecutionError: it could not be read.
    """
    result = _probe(host, call, disk)
    if result.code == _NOTHING_RECOGNISED:
        return ""
    told = dict(line.partition("=")[::2] for line in result.check().out.splitlines())
    return told.get("TYPE") or told.get("PTTYPE") or told.get("USAGE") or ""


def is_member(host: Host, call: Call, disk: str) -> bool:
    """Tell whether a disk is a member of an array; asks mdadm only where blkid does not know, for
    it need not be installed.

    :raises ProcessExecutionError: it could not be read.
    """
    result = _probe(host, call, disk)
    if result.code == _NOTHING_RECOGNISED:  # that is what it says of an unreadable disk too
        _check_readable(host, call, disk)
        result = _probe(host, call, disk)
    if result.code == _AMBIVALENT:
        return examine(host, call, disk) is not None
    if result.code == _NOTHING_RECOGNISED:
        return False
    return f"TYPE={_MEMBER}" in result.check().out.splitlines()


def _probe(host: Host, call: Call, disk: str) -> Result:
    return host.programs.run(
        call, "blkid", "--probe", "--output", "export", f"/dev/{disk}", limit_s=60.0
    )


def choose(superblocks: Sequence[Superblock]) -> tuple[list[Superblock], list[Superblock]]:
    """Return the members that have all the array's data, and those that missed some of it.

    :raises BrickException: they are of different arrays, or each went on without the other.
    """
    uuids = {one.uuid for one in superblocks}
    if len(uuids) > 1:
        told = ", ".join(f"{one.disk}: {one.uuid}" for one in superblocks)
        raise exception.BrickException(
            f"The legs are members of different arrays, none was assembled: {told}"
        )
    if any(
        one.misses(other) and one.events <= other.events
        for one in superblocks
        for other in superblocks
        if one is not other
    ):
        told = ", ".join(f"{one.disk}: {one.events} events" for one in superblocks)
        raise exception.BrickException(
            "Each leg was used without the other, so that they hold different data; none was "
            f"assembled. Decide which one counts and add the other to its array anew: {told}"
        )
    latest = max(one.events for one in superblocks)
    fresh = [one for one in superblocks if one.events == latest]
    stale = [one for one in superblocks if one.events != latest]
    return fresh, stale


# -- make, start, grow -----------------------------------------------------------------------
def create(
    host: Host,
    call: Call,
    name: str,
    level: str,
    disks: Sequence[str],
    read_only: bool,
    path: str = "",
) -> None:
    """Make an array of disks that carry nothing.

    :param path: by which it is to be reached; by its name if empty.
    :raises ProcessExecutionError: mdadm could not.
    """
    words = ["-C", *(["-o"] if read_only else []), path or FOLDER + name, "-R", "-N", name]
    words += ["--level", level, f"--raid-devices={len(disks)}", "--bitmap=internal"]
    words += ["--homehost=any", "--failfast", "--assume-clean"]
    run(host, call, *words, *(f"/dev/{disk}" for disk in disks)).check()


def assemble(host: Host, call: Call, path: str, disks: Collection[str], read_only: bool) -> None:
    """Start an array from its members, also if some are missing.

    :raises ProcessExecutionError: mdadm could not.
    """
    options = ["-o"] if read_only else []
    members = (f"/dev/{disk}" for disk in disks)
    run(host, call, "--assemble", "--run", path, *options, *members).check()


def add_again(host: Host, call: Call, path: str, disk: str, check: Callable[[], None]) -> None:
    """Give an array a member back that it went without: what it missed is copied to it.

    :param check: raises if the disk's name is not its own any more.
    :raises ProcessExecutionError: mdadm could not.
    """
    member = f"/dev/{disk}"
    # With the bitmap only what was written meanwhile is copied; without it, everything.
    check()
    if run(host, call, "--manage", path, "--re-add", member).code != 0:
        check()
        run(host, call, "--manage", path, "--add", member).check()


def fail(host: Host, call: Call, array: str, disk: str) -> None:
    """Have an array go on without a member: it writes nothing to it any more.

    :param array: its kernel name.
    :raises ProcessExecutionError: it could not; a RAID 1 never goes without its last member.
    """
    run(host, call, "--manage", f"/dev/{array}", "--fail", f"/dev/{disk}").check()


def wait_for_node(host: Host, call: Call, path: str, disks: Collection[str]) -> str:
    """Return the kernel name of an array once its path leads to it and it runs.

    :param disks: its members, of which it must have any: the path may lead to another array still,
        that has got the number of the one that had this name before.

    :raises NotFound: it does not.
    """

    def look() -> str | None:
        name = nodes.kernel_name(host, path)
        is_it = name in find_array(host.sysfs, disks)
        return name if name is not None and is_it and is_running(host.sysfs, name) else None

    found = call.wait_until(look, what=path, limit_s=_NODE_S)
    if found is None:
        raise exception.NotFound(f"md: {path} not found.")
    return found


def grow(host: Host, call: Call, path: str) -> None:
    """Have an array use all of its members.

    :raises ProcessExecutionError: mdadm could not.
    """
    run(host, call, "--grow", "--size", "max", path).check()


# -- stop ------------------------------------------------------------------------------------
def stop(host: Host, call: Call, array: str, meant: int | None = None) -> None:
    """Stop an array; its members keep its data.

    :param array: its kernel name.
    :param meant: its instance: a later array of its name is left alone.
    :raises DeviceInUse: somebody holds it.
    """
    instance = meant if meant is not None else host.sysfs.instance("block", array)
    number = host.sysfs.text("block", array, "dev")

    def is_stopped() -> bool:
        return host.sysfs.instance("block", array) != instance or not members_of(host.sysfs, array)

    for attempt in range(1, _STOP_TRIES + 1):
        # At first one without members may be one that has lost them all.
        if host.sysfs.instance("block", array) != instance or (attempt > 1 and is_stopped()):
            return
        result = run(host, call, "--stop", f"/dev/{array}")
        if result.code == 0:
            call.wait_until(is_stopped, what=f"end of {array}", limit_s=_GONE_S)
        if is_stopped():
            _stop_empty(host, call, array, number, instance)
            return
        if attempt < _STOP_TRIES:
            call.pause(_STOP_PAUSE_S * attempt)
    raise exception.DeviceInUse(device=f"/dev/{array}", users=result.summary)


def _stop_empty(host: Host, call: Call, array: str, number: str, ended: int | None) -> None:
    """Stop the empty array that the kernel makes of a node that is opened when its array has just
    ended, as udev does when it comes late to an event: nobody else would (md_mod: create_on_open).

    :param number: of the array that has ended.
    :param ended: its instance.
    """

    def is_settled() -> bool:
        now = host.sysfs.instance("block", array)
        return not udev.knows(host, number) if now is None else now != ended

    def empty() -> int | None:
        is_empty = host.sysfs.text("block", array, "md/array_state") == "clear"
        is_empty = is_empty and not members_of(host.sysfs, array)
        return host.sysfs.instance("block", array) if is_empty else None

    def is_used(made: int) -> bool:
        return empty() != made

    for _ in range(_EMPTY_TRIES):
        call.wait_until(is_settled, what="udev", limit_s=_UDEV_S)
        made = empty()
        if made is None:
            return
        # One that somebody is just making is empty too, but for a moment.
        call.wait_until(partial(is_used, made), what="its use", limit_s=_EMPTY_S)
        if not is_used(made):
            LOG.warning("/dev/%s was opened when it had just ended: ending it again", array)
            run(host, call, "--stop", f"/dev/{array}")
            ended = made


def unlink(host: Host, call: Call, path: str) -> None:
    """Remove the name of an array that is gone, should it have been left."""
    name = path.removeprefix("/dev/")
    if host.dev.link_target(name) is not None and not host.dev.exists(name):
        host.changes.unlink(call, path)
