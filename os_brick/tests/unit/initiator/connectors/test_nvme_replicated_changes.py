# SPDX-License-Identifier: Apache-2.0
"""Replicated NVMe volumes whose legs, arrays and names become others' while a call goes on, and
legs that cannot be read."""

from __future__ import annotations

import contextlib
import pathlib
import threading
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.connectors import nvmeof
from os_brick.initiator.linux import md
from os_brick.initiator.linux.sysfs import Tree
from os_brick.testing import FakeHost
from os_brick.testing.md import Array
from os_brick.testing.nvme_storage import NvmeVolume, Superblock, replicated
from os_brick.tests.unit.initiator.connectors.nvme_helpers import connector, kept_legs, legs


def units_of(host: FakeHost, path: str) -> set[Any]:
    """What lies on the storage below an array."""
    array = host.device(path)
    assert isinstance(array, Array)
    return {member.storage()[1] for member in array.members}


def array_of(host: FakeHost, pair: list[NvmeVolume]) -> Any:
    wanted = {leg.unit for leg in pair}
    for array in host.md.arrays:
        if {member.storage()[1] for member in array.members} & wanted:
            return array
    return None


def test_a_forced_detach_does_not_stop_another_volumes_array(fake_host: FakeHost) -> None:
    """The number md127 is free as soon as the first array is stopped, and the next attach's."""
    first, second = legs(fake_host), legs(fake_host, first=20)
    one, two = connector(fake_host), connector(fake_host)
    mine, other = replicated("vol-1", first), replicated("vol-2", second)
    info = one.connect_volume(mine)
    # The storage is slow to end a connection.
    fake_host.faults.slow_writes["delete_controller"] = 5.0
    came: list[Any] = []

    def attach() -> None:
        came.append(two.connect_volume(other))

    thread = threading.Thread(target=attach, daemon=True)

    def watch(_name: str) -> None:
        # The other attaches while the first volume's legs are disconnected.
        stopped = any(words[:2] == ("mdadm", "--stop") for words in fake_host.started)
        if stopped and not fake_host.md.arrays and thread.ident is None:
            thread.start()

    fake_host.faults.on_read = watch
    one.disconnect_volume(mine, info, force=True)
    fake_host.faults.on_read = None
    with fake_host.idle(thread):
        thread.join(60)
    assert came == [{"type": "block", "path": "/dev/md/vol-2"}]
    assert array_of(fake_host, second) is not None, fake_host.journal[-12:]


@pytest.mark.parametrize("force", [False, True])
def test_an_array_that_has_lost_all_its_legs_is_not_forgotten(
    fake_host: FakeHost, force: bool
) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    info = one.connect_volume(properties)
    fake_host.write(info["path"], b"data")
    for leg in both:
        leg.vanish()
    fake_host.pass_time(1)
    with pytest.raises((exception.BrickException, processutils.ProcessExecutionError)):
        one.disconnect_volume(properties, info, force=force)
    if force:
        assert fake_host.leftovers() == []
    else:
        assert fake_host.md.arrays


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_an_array_that_udev_makes_when_it_comes_late_is_ended_too(
    fake_host: FakeHost, force: bool, times: int
) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    info = one.connect_volume(properties)
    fake_host.md.added_late = times
    one.disconnect_volume(properties, info, force=force)
    assert fake_host.leftovers() == []


def test_a_leg_that_is_another_volume_by_now_is_not_made_a_member(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    both[1].map_after(6)  # the other leg takes a while
    others: list[NvmeVolume] = []
    fake_host.at(3, both[0].vanish)
    fake_host.at(3.1, lambda: others.append(both[0].remap()))
    with pytest.raises(exception.BrickException):
        connector(fake_host).connect_volume(replicated("vol-1", both))
    (other,) = others
    assert other.unit.superblock is None


def test_a_single_leg_is_written_out_although_udev_made_an_array_of_it(fake_host: FakeHost) -> None:
    """What was written to it (a guest's own RAID, an image, a restored backup) is a member."""
    (leg,) = legs(fake_host, count=1)
    one = connector(fake_host)
    properties = replicated("vol-1", [leg], 1)
    info = one.connect_volume(properties)
    assert info["path"] == "/dev/nvme2n1"
    fake_host.write(info["path"], b"backup")
    leg.unit.superblock = Superblock("1:2:3:4", "guest:0", 0, 7, "A.")
    leg.unit.signature = "linux_raid_member"
    # As udev does: mdadm -I, in the end --run.
    fake_host.md.start("guest:0", [fake_host.device(info["path"])])
    fake_host.pass_time(1)
    one.disconnect_volume(properties, info)
    assert leg.data == b"backup", fake_host.lost


def test_a_link_that_leads_to_another_array_is_not_handed_out(fake_host: FakeHost) -> None:
    """udev is late: the name of the array that was, its number is another volume's by now."""
    first, second = legs(fake_host), legs(fake_host, first=20)
    one = connector(fake_host)
    mine, other = replicated("vol-1", first), replicated("vol-2", second)
    one.disconnect_volume(mine, one.connect_volume(mine))
    one.connect_volume(other)
    fake_host.stale_link("/dev/md/vol-1", "/dev/md127")
    fake_host.delays.udev_s = 8.0
    path = one.connect_volume(mine)["path"]
    assert units_of(fake_host, path) == {leg.unit for leg in first}, fake_host.journal[-8:]
    assert not [words for words in fake_host.started if "--manage" in words]


def test_an_agent_that_fails_leaves_nothing(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Agent:
        class NVMeOFAgent:
            @staticmethod
            def ensure_running(connector: Any) -> None:
                raise RuntimeError("no agent")

    monkeypatch.setattr(nvmeof, "nvmeof_agent", Agent)
    with pytest.raises(RuntimeError):
        connector(fake_host).connect_volume(replicated("vol-1", legs(fake_host)))
    assert fake_host.leftovers() == []


# Seen with mdadm 4.2 and blkid 2.38.1 whose reads end with EIO: "mdadm: No md superblock detected
# on …", exit 1; blkid --probe: nothing, exit 2.
def unreadable(host: FakeHost, disk: str, times: float = float("inf")) -> None:
    said = f"mdadm: No md superblock detected on /dev/{disk}.\n"
    host.faults.fail("mdadm", "--examine", f"/dev/{disk}", code=1, err=said, times=times)
    host.faults.fail("blkid", f"/dev/{disk}", code=2, times=times)
    if times == float("inf"):
        host.faults.fail("dd", f"if=/dev/{disk}", code=1, err="dd: Input/output error", times=times)


@pytest.mark.parametrize("times", [1, float("inf")])
def test_a_newer_leg_that_cannot_be_read_is_not_gone_without(
    fake_host: FakeHost, times: float
) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    both[0].subsystem.portals[0].refuse()
    info = one.connect_volume(properties)
    (newer,) = fake_host.md.arrays[0].members
    fake_host.write(info["path"], b"newer")
    one.disconnect_volume(properties, info)
    both[0].subsystem.portals[0].restore()
    unreadable(fake_host, newer.name, times)
    try:
        path = one.connect_volume(properties)["path"]
    except (processutils.ProcessExecutionError, exception.BrickException):
        assert times > 1
        return
    assert both[1].unit in units_of(fake_host, path)


def test_no_array_is_made_of_legs_that_cannot_be_read(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    fake_host.forget()
    for disk in ("nvme2n1", "nvme3n1"):
        unreadable(fake_host, disk)
    with pytest.raises((processutils.ProcessExecutionError, exception.BrickException)):
        one.connect_volume(properties)
    assert not [words for words in fake_host.started if words[:2] == ("mdadm", "-C")]


@pytest.mark.parametrize("times", [1, float("inf")])
def test_the_leg_of_an_array_that_cannot_be_read_is_not_handed_out(
    fake_host: FakeHost, times: float
) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    unreadable(fake_host, "nvme2n1", times)
    try:
        path = one.connect_volume(replicated("vol-1", both[:1], 1))["path"]
    except (processutils.ProcessExecutionError, exception.BrickException):
        return
    assert path == "/dev/md/vol-1"


def test_a_single_leg_with_two_signatures_is_attached(fake_host: FakeHost) -> None:
    """blkid(8): 8 if an ambivalent probing result was detected. The content is the guest's."""
    (leg,) = legs(fake_host, count=1)
    fake_host.faults.fail("blkid", code=8, times=float("inf"))
    assert (
        connector(fake_host).connect_volume(replicated("vol-1", [leg], 1))["path"] == "/dev/nvme2n1"
    )


def test_an_array_that_ends_by_itself_is_not_taken_for_written_out(fake_host: FakeHost) -> None:
    """udev's rule runs `mdadm -If` for a leg that goes, which stops an array without legs."""
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    info = one.connect_volume(properties)
    fake_host.write(info["path"], b"data")
    array = fake_host.md.arrays[0]
    done: list[str] = []

    def go(name: str) -> None:
        if not done and any(line.startswith("identify") for line in fake_host.journal):
            done.append(name)
            for leg in both:
                leg.vanish()
            fake_host.md.stop(array)

    fake_host.forget()
    fake_host.faults.on_read = go
    with pytest.raises(exception.BrickException, match="ended by itself"):
        one.disconnect_volume(properties, info)
    assert done
    assert [loss.data for loss in fake_host.lost] == [b"data"]


@pytest.mark.parametrize("comes_s", [30, 100])
def test_an_attach_leaves_the_array_of_whom_has_its_legs_name_now(
    fake_host: FakeHost, comes_s: int
) -> None:
    """A leg's name is another volume's when the attach fails, and that one's array has it."""
    both, third = legs(fake_host), legs(fake_host, 1, first=30)
    subsystem = both[0].subsystem
    neighbour = subsystem.namespace(2)  # keeps the subsystem connected
    one = connector(fake_host)
    one.connect_volume(neighbour.properties)
    both[1].map_after(comes_s)
    others: list[NvmeVolume] = []
    fake_host.at(3, both[0].vanish)
    fake_host.at(3.1, lambda: others.append(both[0].remap()))
    came: list[Any] = []

    def attach() -> None:
        came.append(connector(fake_host).connect_volume(replicated("vol-2", [others[0], *third])))

    thread = threading.Thread(target=attach, daemon=True)
    fake_host.at(4, thread.start)
    with pytest.raises(exception.BrickException):
        connector(fake_host).connect_volume(replicated("vol-1", both))
    with fake_host.idle(thread):
        thread.join(60)
    assert came == [{"type": "block", "path": "/dev/md/vol-2"}]
    assert array_of(fake_host, [others[0], *third]) is not None, fake_host.journal[-12:]


def same_subsystem(host: FakeHost, portals: int = 1) -> list[NvmeVolume]:
    subsystem = host.nvme_subsystem(portals=portals)
    return [subsystem.namespace(), subsystem.namespace()]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("portals", [1, 2])
def test_legs_of_one_subsystem_leave_nothing(
    fake_host: FakeHost, portals: int, force: bool
) -> None:
    one = connector(fake_host)
    properties = replicated("vol-1", same_subsystem(fake_host, portals))
    one.disconnect_volume(properties, one.connect_volume(properties), force=force)
    assert fake_host.leftovers() == []


def test_a_failed_attach_of_legs_of_one_subsystem_leaves_nothing(fake_host: FakeHost) -> None:
    properties = replicated("vol-1", same_subsystem(fake_host))
    fake_host.faults.fail("mdadm", "-C")
    with pytest.raises(processutils.ProcessExecutionError):
        connector(fake_host).connect_volume(properties)
    assert fake_host.leftovers() == []


def test_a_failed_attach_of_one_leg_of_a_subsystem_leaves_nothing(fake_host: FakeHost) -> None:
    both = same_subsystem(fake_host)
    both[1].vanish()
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).connect_volume(replicated("vol-1", both))
    assert fake_host.leftovers() == []


# -- whose an array is ---------------------------------------------------------------------
def test_a_stale_leg_that_is_another_volume_by_now_is_not_given_to_the_array(
    fake_host: FakeHost,
) -> None:
    """Its name goes to the other while the array, which runs already, waits for its link."""
    one, both = kept_legs(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    both[1].vanish()
    fake_host.pass_time(1)
    info = one.connect_volume(properties)
    fake_host.write(info["path"], b"newer")
    one.disconnect_volume(properties, info)
    both[1].map()
    fake_host.pass_time(1)
    fake_host.delays.udev_s = 8.0
    fake_host.forget()
    others: list[NvmeVolume] = []

    def swap(_name: str) -> None:
        if any(words[:2] == ("mdadm", "--assemble") for words in fake_host.started):
            fake_host.faults.on_read = None
            both[1].vanish()
            others.append(both[1].remap())
            others[0].unit.data = b"precious"

    fake_host.faults.on_read = swap
    with pytest.raises(exception.VolumeDeviceNotFound, match="taken away"):
        one.connect_volume(properties)
    (other,) = others
    assert other.unit.superblock is None
    assert other.data == b"precious"
    assert not [words for words in fake_host.started if {"--add", "--re-add"} & set(words)]


@pytest.mark.parametrize("force", [False, True])
def test_a_detach_leaves_the_array_of_whom_has_its_legs_name_now(
    fake_host: FakeHost, force: bool
) -> None:
    """Its own has been stopped, but udev is busy: what it may yet make of the legs is awaited."""
    one, both = kept_legs(fake_host)
    properties = replicated("vol-1", both)
    info = one.connect_volume(properties)
    others: list[NvmeVolume] = []
    started: list[Array] = []
    queue = pathlib.Path(fake_host.host.run.path("udev/queue"))

    def start() -> None:
        others[0].unit.superblock = Superblock("1:2:3:4", "vol-2", 0, 7, "A.")
        started.append(fake_host.md.start("vol-2", [fake_host.device("/dev/nvme2n2")]))
        queue.unlink()

    def watch(_name: str) -> None:
        stopped = any(words[:2] == ("mdadm", "--stop") for words in fake_host.started)
        if stopped and not fake_host.md.arrays:
            fake_host.faults.on_read = None
            queue.parent.mkdir(parents=True, exist_ok=True)
            queue.touch()
            fake_host.after(0.5, both[0].vanish)
            fake_host.after(1.0, lambda: others.append(both[0].remap()))
            fake_host.after(2.0, start)

    fake_host.forget()
    fake_host.faults.on_read = watch
    with contextlib.suppress(exception.BrickException):  # the name is in use by another
        one.disconnect_volume(properties, info, force=force)
    assert started
    assert fake_host.md.arrays == started


def test_another_volumes_array_is_not_extended(fake_host: FakeHost) -> None:
    """The volume's has ended by itself, its link is left, and its number is the other's."""
    first, second = legs(fake_host), legs(fake_host, first=20)
    one = connector(fake_host)
    mine, other = replicated("vol-1", first), replicated("vol-2", second)
    info = one.connect_volume(mine)
    fake_host.md.stop(fake_host.md.arrays[0])
    fake_host.pass_time(1)
    one.connect_volume(other)
    fake_host.stale_link("/dev/md/vol-1", "/dev/md127")
    fake_host.forget()
    with pytest.raises(exception.VolumeDeviceNotFound):
        one.extend_volume({**mine, "device_path": info["path"]})
    assert not [words for words in fake_host.started if "--grow" in words]
    assert one.get_volume_paths(mine) == []


def test_an_array_of_partitions_is_not_taken_for_the_volumes(tmp_path: pathlib.Path) -> None:
    """A partition is below its disk in sysfs: only its class tells who holds it."""
    disk, array = tmp_path / "devices/sdx/sdx1", tmp_path / "devices/md127"
    for folder in (disk / "holders/md127", array / "slaves/sdx1", array / "md"):
        folder.mkdir(parents=True)
    for place, leads_to in (("class/block/sdx1", disk), ("block/md127", array)):
        link = tmp_path / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(leads_to)
    sysfs = Tree(str(tmp_path))
    assert md.find_array(sysfs, md.members_of(sysfs, "md127")) == ["md127"]
