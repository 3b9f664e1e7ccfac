# SPDX-License-Identifier: Apache-2.0
"""Replicated volumes: namespaces of several subsystems joined by an md array."""

from __future__ import annotations

import json
from typing import Any

import pytest
from oslo_concurrency import processutils
from oslo_config import cfg

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.md import OFFSET
from os_brick.testing.nvme_storage import NvmeVolume, Superblock, replicated
from os_brick.tests.unit.initiator.connectors.nvme_helpers import connector, legs

GIB = 1024**3


def mdadm(host: FakeHost, word: str) -> list[tuple[str, ...]]:
    return [words for words in host.started if words[0] == "mdadm" and word in words]


def members(host: FakeHost) -> list[str]:
    return sorted(disk.name for disk in host.md.arrays[0].members)


# -- attach --------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [None, 0, 2])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_new_volume_is_made_an_array(
    fake_host: FakeHost, count: int | None, read_only: bool
) -> None:
    """NV-60, NV-62."""
    mode = {"access_mode": "ro" if read_only else "rw"}
    properties = replicated("vol-1", legs(fake_host), count, **mode)
    info = connector(fake_host).connect_volume(properties)
    assert info == {"type": "block", "path": "/dev/md/vol-1"}
    (command,) = mdadm(fake_host, "-C")
    words = " ".join(command)
    assert "/dev/md/vol-1 -R -N vol-1 --level 1 --raid-devices=2 --bitmap=internal" in words
    assert "--homehost=any --failfast --assume-clean" in words
    assert ("-o" in command) is read_only


def test_all_of_its_life(fake_host: FakeHost) -> None:
    """Made, written to, ended, assembled again, extended, ended."""
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    info = one.connect_volume(properties)
    fake_host.write(info["path"], b"data")
    one.disconnect_volume(json.loads(json.dumps(properties)), info)
    assert both[0].data == b"data"
    assert fake_host.leftovers() == []
    info = one.connect_volume(properties)
    assert len(mdadm(fake_host, "-C")) == 1
    assert len(mdadm(fake_host, "--assemble")) == 1
    for leg in both:
        leg.grow(3 * GIB)
    assert one.extend_volume(properties) == 3 * GIB - OFFSET
    assert one.get_volume_paths(properties) == ["/dev/md/vol-1"]
    one.disconnect_volume(properties | {"device_path": "/dev/md/vol-1"}, None)
    assert fake_host.leftovers() == []


def test_a_connected_array_is_connected_again(fake_host: FakeHost) -> None:
    properties = replicated("vol-1", legs(fake_host))
    one = connector(fake_host)
    first = one.connect_volume(properties)
    there = fake_host.inventory()
    assert one.connect_volume(properties) == first
    assert fake_host.inventory() == there


def test_a_missing_leg_keeps_a_new_array_from_being_made(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    both[1].subsystem.portals[0].refuse()
    with pytest.raises(exception.VolumeDeviceNotFound, match="cannot create MD"):
        connector(fake_host).connect_volume(replicated("vol-1", both))
    assert fake_host.leftovers() == []


def test_no_leg_at_all(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    for leg in both:
        leg.subsystem.portals[0].refuse()
    with pytest.raises(exception.VolumeDeviceNotFound, match="vol-1"):
        connector(fake_host).connect_volume(replicated("vol-1", both))
    assert fake_host.leftovers() == []


def test_a_leg_lost_goes_on_degraded_and_is_rebuilt(fake_host: FakeHost) -> None:
    """Degrade and rebuild."""
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    both[1].subsystem.portals[0].refuse()
    info = one.connect_volume(properties)
    assert len(members(fake_host)) == 1
    fake_host.write(info["path"], b"more")
    one.disconnect_volume(properties, info)
    both[1].subsystem.portals[0].restore()
    one.connect_volume(properties)
    assert len(members(fake_host)) == 2
    assert both[1].data == b"more"


def test_a_leg_that_comes_back_joins_the_running_array(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    both[1].subsystem.portals[0].refuse()
    one.connect_volume(properties)
    both[1].subsystem.portals[0].restore()
    one.connect_volume(properties)
    assert len(members(fake_host)) == 2


def test_legs_that_went_on_without_each_other_are_not_joined(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    for lost in both:
        lost.subsystem.portals[0].refuse()
        one.disconnect_volume(properties, one.connect_volume(properties))
        lost.subsystem.portals[0].restore()
    with pytest.raises(exception.BrickException, match="different data"):
        one.connect_volume(properties)
    assert fake_host.leftovers() == []


def test_legs_of_different_arrays_are_not_joined(fake_host: FakeHost) -> None:
    four = legs(fake_host, 4)
    one = connector(fake_host)
    for alias, pair in (("a", four[:2]), ("b", four[2:])):
        properties = replicated(alias, pair)
        one.disconnect_volume(properties, one.connect_volume(properties))
    with pytest.raises(exception.BrickException, match="different arrays"):
        one.connect_volume(replicated("a", [four[0], four[2]]))
    assert fake_host.leftovers() == []


def test_a_leg_with_data_is_never_made_a_member(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    both[1].unit.signature = "ext4"
    with pytest.raises(exception.BrickException, match="carries data already"):
        connector(fake_host).connect_volume(replicated("vol-1", both))
    assert mdadm(fake_host, "-C") == []
    assert fake_host.leftovers() == []


def test_a_failed_create_is_told_at_once(fake_host: FakeHost) -> None:
    properties = replicated("vol-1", legs(fake_host))
    fake_host.faults.fail("mdadm", "-C", code=1, err="mdadm: unexpected failure")
    began = fake_host.now
    with pytest.raises(processutils.ProcessExecutionError):
        connector(fake_host).connect_volume(properties)
    assert fake_host.now - began < 10
    assert fake_host.leftovers() == []


def test_an_array_that_does_not_appear(fake_host: FakeHost) -> None:
    properties = replicated("vol-1", legs(fake_host))
    fake_host.faults.fail("mdadm", "-C", code=0)
    with pytest.raises(exception.NotFound, match=r"md: /dev/md/vol-1 not found\."):
        connector(fake_host).connect_volume(properties)
    assert fake_host.leftovers() == []


def test_an_array_that_udev_assembled_under_another_name_is_renamed(fake_host: FakeHost) -> None:
    """NV-61."""
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    for leg in both:
        one.connect_volume(leg.properties)
    fake_host.md.start("any", [fake_host.device("/dev/nvme2n1"), fake_host.device("/dev/nvme3n1")])
    fake_host.pass_time(1)
    assert one.connect_volume(properties)["path"] == "/dev/md/vol-1"
    assert len(fake_host.md.arrays) == 1


def test_the_alias_is_needed(fake_host: FakeHost) -> None:
    """NV-04."""
    properties = replicated("vol-1", legs(fake_host))
    del properties["alias"]
    one = connector(fake_host)
    for method, more in (
        ("connect_volume", ()),
        ("disconnect_volume", (None,)),
        ("extend_volume", ()),
        ("get_volume_paths", ()),
    ):
        with pytest.raises(exception.BrickException, match="alias missing in connection info"):
            getattr(one, method)(properties, *more)


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("out", [None, "", "mdadm: cannot open /dev/x: Input/output error"])
def test_a_leg_that_cannot_be_looked_at_is_not_gone_without(
    fake_host: FakeHost, foreign: bool, out: str | None
) -> None:
    """It may be the one with the newer data."""
    both = legs(fake_host)
    one = connector(fake_host, foreign=foreign)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    both[1].subsystem.portals[0].refuse()
    info = one.connect_volume(properties)
    (newer,) = members(fake_host)
    fake_host.write(info["path"], b"newer")
    one.disconnect_volume(properties, info)
    both[1].subsystem.portals[0].restore()
    if out is None:
        fake_host.faults.hang("mdadm", "--examine", f"/dev/{newer}", times=1)
    else:
        code = 1 if out else 0
        fake_host.faults.fail("mdadm", "--examine", f"/dev/{newer}", code=code, err=out)
    with pytest.raises((processutils.ProcessExecutionError, exception.BrickException)):
        one.connect_volume(properties)
    assert fake_host.leftovers() == []
    assert one.connect_volume(properties)
    assert both[1].data == b"newer"


@pytest.mark.parametrize("times", [1, 2])
def test_an_array_whose_node_was_opened_at_its_end_does_not_stay_as_an_empty_one(
    fake_host: FakeHost, times: int
) -> None:
    """udev comes late to an event of it, and the kernel makes an array of what it opens."""
    one = connector(fake_host)
    properties = replicated("vol-1", legs(fake_host))
    info = one.connect_volume(properties)
    fake_host.md.opened_late = times
    one.disconnect_volume(properties, info)
    assert fake_host.md.arrays == []
    assert fake_host.leftovers() == []


def test_an_empty_array_that_somebody_makes_one_of_is_left_alone(fake_host: FakeHost) -> None:
    one = connector(fake_host)
    properties = replicated("vol-1", legs(fake_host))
    info = one.connect_volume(properties)
    ended = fake_host.md.arrays[0]
    fake_host.md.opened_late = 1
    noticed: list[float] = []

    def somebody(_name: str) -> None:
        there = fake_host.md.arrays
        if there and there[0] is not ended and not noticed:
            noticed.append(fake_host.now)
            fake_host.after(1, lambda: fake_host.md.use(there[0]))

    fake_host.faults.on_read = somebody
    one.disconnect_volume(properties, info)
    assert noticed
    assert len(fake_host.md.arrays) == 1
    assert len([words for words in fake_host.started if "--stop" in words]) == 1


def test_an_attach_whose_time_is_over_stops_its_array_all_the_same(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    fake_host.delays.udev_s = 1000
    cfg.CONF.set_override("call_timeout", 30, group="os_brick")
    try:
        with pytest.raises(exception.BrickException):
            connector(fake_host).connect_volume(replicated("vol-1", both))
    finally:
        cfg.CONF.clear_override("call_timeout", group="os_brick")
    assert fake_host.md.arrays == []
    assert fake_host.nvme.controllers == []


def test_a_failed_attach_takes_no_leg_from_an_array_that_does_not_stop(fake_host: FakeHost) -> None:
    fake_host.delays.udev_s = 1000
    fake_host.faults.fail("mdadm", "--stop", times=99, err="mdadm: Cannot get exclusive access")
    with pytest.raises(exception.NotFound):
        connector(fake_host).connect_volume(replicated("vol-1", legs(fake_host)))
    assert len(fake_host.md.arrays) == 1
    assert len(members(fake_host)) == len(fake_host.nvme.controllers) == 2


# -- one replica ---------------------------------------------------------------------------
def test_one_replica_is_the_leg_itself(fake_host: FakeHost) -> None:
    (leg,) = legs(fake_host, 1)
    one = connector(fake_host)
    properties = replicated("vol-1", [leg], 1)
    info = one.connect_volume(properties)
    assert info["path"] == "/dev/nvme2n1"
    fake_host.write(info["path"], b"data")
    assert one.get_volume_paths(properties) == [info["path"]]
    leg.grow(2 * GIB)
    assert one.extend_volume(properties) == 2 * GIB
    one.disconnect_volume(properties, info)
    assert leg.data == b"data"
    assert fake_host.leftovers() == []


def test_one_replica_of_an_array_is_the_array(fake_host: FakeHost) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    single = replicated("vol-1", both[:1], 1)
    info = one.connect_volume(single)
    assert info["path"] == "/dev/md/vol-1"
    one.disconnect_volume(single, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize(("signature", "asked"), [("ext4", ["blkid"]), ("", ["blkid", "dd"] * 2)])
def test_one_replica_needs_no_mdadm(fake_host: FakeHost, signature: str, asked: list[str]) -> None:
    (leg,) = legs(fake_host, 1)
    leg.unit.signature = signature
    fake_host.faults.miss("mdadm")
    one = connector(fake_host)
    properties = replicated("vol-1", [leg], 1)
    info = one.connect_volume(properties)
    assert info["path"] == "/dev/nvme2n1"
    programs = [words[0] for words in fake_host.started]
    assert [one for one in programs if one in asked] == asked[: 1 + 2 * (not signature)]
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_one_replica_is_extended_although_udev_made_an_array_of_it(fake_host: FakeHost) -> None:
    """Its user's data, such as a guest's own RAID, looks like a member of one."""
    (leg,) = legs(fake_host, 1)
    one = connector(fake_host)
    properties = replicated("vol-1", [leg], 1)
    info = one.connect_volume(properties)
    leg.unit.superblock = Superblock("1:2:3:4", "guest:0", 0, 7, "A.")
    leg.unit.signature = "linux_raid_member"
    fake_host.md.start("guest:0", [fake_host.device(info["path"])])
    fake_host.pass_time(1)
    leg.grow(3 * GIB)
    assert one.get_volume_paths(properties) == [info["path"]]
    assert one.extend_volume({**properties, "device_path": info["path"]}) == 3 * GIB


# -- detach --------------------------------------------------------------------------------
def test_an_array_in_use_keeps_its_legs(fake_host: FakeHost) -> None:
    properties = replicated("vol-1", legs(fake_host))
    one = connector(fake_host)
    info = one.connect_volume(properties)
    fake_host.mount(info["path"], "/srv/data")
    with pytest.raises(exception.DeviceInUse):
        one.disconnect_volume(properties, info)
    assert len(fake_host.nvme.controllers) == 2
    fake_host.unmount("/srv/data")
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_an_array_that_does_not_stop_keeps_its_legs(fake_host: FakeHost) -> None:
    """NV-63."""
    properties = replicated("vol-1", legs(fake_host))
    one = connector(fake_host)
    info = one.connect_volume(properties)
    fake_host.faults.fail("mdadm", "--stop", code=1, times=100)
    with pytest.raises(exception.DeviceInUse):
        one.disconnect_volume(properties, info)
    assert len(fake_host.nvme.controllers) == 2


def test_an_array_that_is_busy_for_a_moment_is_stopped(fake_host: FakeHost) -> None:
    properties = replicated("vol-1", legs(fake_host))
    one = connector(fake_host)
    info = one.connect_volume(properties)
    fake_host.faults.fail("mdadm", "--stop", code=1, times=2)
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_the_array_is_written_out(fake_host: FakeHost) -> None:
    properties = replicated("vol-1", legs(fake_host))
    one = connector(fake_host)
    info = one.connect_volume(properties)
    fake_host.faults.fail("sync", code=1)
    with pytest.raises(processutils.ProcessExecutionError):
        one.disconnect_volume(properties, info)
    assert fake_host.md.arrays


def test_with_force_an_array_without_a_leg_to_write_to_is_not_waited_for(
    fake_host: FakeHost,
) -> None:
    both = legs(fake_host)
    properties = replicated("vol-1", both)
    one = connector(fake_host)
    info = one.connect_volume(properties)
    fake_host.write(info["path"], b"data")
    for leg in both:
        leg.subsystem.portals[0].kill()
    began = fake_host.now
    with pytest.raises(exception.ExceptionChainer, match="No leg"):
        one.disconnect_volume(properties, info, force=True)
    assert fake_host.now - began < 60
    assert fake_host.leftovers() == []


def test_with_force_an_array_that_stops_only_without_its_legs_is_stopped(
    fake_host: FakeHost,
) -> None:
    properties = replicated("vol-1", legs(fake_host))
    one = connector(fake_host)
    info = one.connect_volume(properties)
    fake_host.faults.fail("mdadm", "--stop", code=1, times=5)
    with pytest.raises(exception.ExceptionChainer):
        one.disconnect_volume(properties, info, force=True)
    assert fake_host.leftovers() == []


def test_a_failed_assembly_is_tried_again_and_told(fake_host: FakeHost) -> None:
    properties = replicated("vol-1", legs(fake_host))
    one = connector(fake_host)
    one.disconnect_volume(properties, one.connect_volume(properties))
    fake_host.faults.fail("mdadm", "--assemble", code=1, times=2)
    one.disconnect_volume(properties, one.connect_volume(properties))
    fake_host.faults.fail("mdadm", "--assemble", code=1, times=9)
    with pytest.raises(processutils.ProcessExecutionError):
        one.connect_volume(properties)
    assert fake_host.leftovers() == []


def test_a_leg_that_cannot_be_given_back_does_not_fail_the_attach(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    both = legs(fake_host)
    one = connector(fake_host)
    properties = replicated("vol-1", both)
    one.disconnect_volume(properties, one.connect_volume(properties))
    both[1].subsystem.portals[0].refuse()
    one.connect_volume(properties)
    both[1].subsystem.portals[0].restore()
    fake_host.faults.fail("mdadm", "--manage", code=1, times=9)
    assert one.connect_volume(properties)["path"] == "/dev/md/vol-1"
    assert "could not be given back" in caplog.text


# -- legs that are other volumes by now ----------------------------------------------------
def remapped(host: FakeHost, *which: int) -> tuple[Any, dict[str, Any], list[NvmeVolume]]:
    """Attach an array, write to it and give the numbers of some legs to other volumes."""
    both = legs(host)
    one = connector(host)
    properties = replicated("vol-1", both)
    info = one.connect_volume(properties)
    host.write(info["path"], b"mine")
    for at in which:
        both[at].subsystem.sends_events = False
        both[at].remap()
    host.forget()
    return one, properties, both


def test_an_array_is_not_written_to_another_volume(fake_host: FakeHost) -> None:
    one, properties, _both = remapped(fake_host, 0)
    leg = fake_host.md.arrays[0].members[0]
    with pytest.raises(exception.WrongVolume, match=leg.name):
        one.disconnect_volume(properties, {"path": "/dev/md/vol-1"})
    assert fake_host.started == []
    assert len(members(fake_host)) == 2


def test_with_force_an_array_is_written_to_its_other_leg_only(fake_host: FakeHost) -> None:
    one, properties, both = remapped(fake_host, 0)
    leg = fake_host.md.arrays[0].members[0]
    with pytest.raises(exception.ExceptionChainer, match="another volume"):
        one.disconnect_volume(properties, {"path": "/dev/md/vol-1"}, force=True)
    assert [words[1:] for words in fake_host.started][:2] == [
        ("--manage", "/dev/md127", "--fail", f"/dev/{leg.name}"),
        ("/dev/md127",),
    ]
    assert both[1].data == b"mine"
    assert fake_host.leftovers() == []


def test_with_force_an_array_of_other_volumes_only_is_not_written(fake_host: FakeHost) -> None:
    one, properties, _both = remapped(fake_host, 0, 1)
    with pytest.raises(exception.ExceptionChainer, match="another volume"):
        one.disconnect_volume(properties, {"path": "/dev/md/vol-1"}, force=True)
    assert not [words for words in fake_host.started if words[0] == "sync"]
    # To stop it writes it out: not before its legs are gone.
    ends = [line for line in fake_host.journal if "delete_" in line or "--stop" in line]
    assert sorted(ends[:2]) == ["delete_controller nvme0", "delete_controller nvme1"]
    assert fake_host.leftovers() == []


# -- methods for others --------------------------------------------------------------------
@pytest.fixture
def drives(fake_host: FakeHost) -> tuple[Any, list[str]]:
    """A connector, and two attached legs."""
    one = connector(fake_host)
    return one, [one.connect_volume(leg.properties)["path"] for leg in legs(fake_host)]


def test_arrays_by_hand(fake_host: FakeHost, drives: tuple[Any, list[str]]) -> None:
    one, paths = drives
    one.create_raid(paths, "1", "/dev/md/by-hand", "by-hand", False)
    assert one.is_raid_exists("/dev/md/by-hand")
    one.end_raid("/dev/md/by-hand")
    assert not one.is_raid_exists("/dev/md/by-hand")
    assert one.assemble_raid(paths, "/dev/md/by-hand", False) is True
    one.stop_and_assemble_raid(paths, "/dev/md/other", False)
    assert len(fake_host.md.arrays) == 1
    one.remove_raid("/dev/md/by-hand")


def test_arrays_by_hand_of_drives_by_links(
    fake_host: FakeHost, drives: tuple[Any, list[str]]
) -> None:
    one, paths = drives
    links = [f"/dev/leg-{at}" for at in range(len(paths))]
    for link, path in zip(links, paths, strict=True):
        fake_host.stale_link(link, path)
    began = fake_host.now
    one.create_raid(links, "1", "/dev/md/by-hand", "by-hand", False)
    one.stop_and_assemble_raid(links, "/dev/md/other", False)
    assert one.is_raid_exists("/dev/md/other")
    assert fake_host.now - began < 10


def test_run_mdadm_gives_the_first_line(fake_host: FakeHost, drives: tuple[Any, list[str]]) -> None:
    one, paths = drives
    one.create_raid(paths, "1", "a", "a", False)
    assert one.run_mdadm(["mdadm", "--detail", "/dev/md/a"]) == "/dev/md/a:"
    assert one.run_mdadm(["mdadm", "--detail", "/dev/md/b"]) is None
    with pytest.raises(processutils.ProcessExecutionError):
        one.run_mdadm(["mdadm", "--detail", "/dev/md/b"], raise_exception=True)


def test_drives_without_a_superblock_are_not_assembled(drives: tuple[Any, list[str]]) -> None:
    one, paths = drives
    with pytest.raises(exception.BrickException, match="no members"):
        one.stop_and_assemble_raid(paths, "/dev/md/x", False)
