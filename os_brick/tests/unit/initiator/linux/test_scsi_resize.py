# SPDX-License-Identifier: Apache-2.0
"""Extending: what comes back is the true size of what the caller uses, or an error."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.linux import block, iscsi, multipath, scsi, scsi_resize
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk
from os_brick.testing import FakeHost
from os_brick.testing.storage import Portal, Volume

GIB = 1024**3
RESIZE = ("multipathd", "resize")


@dataclass
class Attached:
    """A volume attached to a fake host, seen from the shared layer."""

    fake: FakeHost
    volume: Volume
    path: str

    @property
    def host(self) -> Host:
        return self.fake.host

    @property
    def disks(self) -> list[Disk]:
        found = [scsi.read_disk_named(self.host.sysfs, one.name) for one in self.fake.disks()]
        return [disk for disk in found if disk is not None]

    def disk_by(self, portal: Portal) -> Disk:
        """Return the disk that came by a portal: which log-in is first is not always the same."""
        for disk in self.disks:
            session = iscsi.session_of_disk(self.host.sysfs, disk)
            if session is not None and portal.address in {one.host for one in session.portals}:
                return disk
        raise LookupError(portal.text)

    @property
    def map(self) -> Map | None:
        found = multipath.find_maps(self.host.sysfs, self.disks)
        return found[0] if found else None

    def extend(self, limit_s: float = 600, disks: list[Disk] | None = None) -> int:
        call = Call("extend", self.host.clock, limit_s)
        return scsi_resize.extend(self.host, call, self.disks if disks is None else disks, self.map)

    def sizes(self) -> set[int | None]:
        names = [disk.name for disk in self.disks] + ([self.map.name] if self.map else [])
        return {block.read_size(self.host.sysfs, name) for name in names}

    def rescans(self) -> list[str]:
        return [change.what for change in self.fake.changes if change.kind == "rescan"]

    def resizes(self) -> int:
        return sum(words[:2] == RESIZE for words in self.fake.started)


Attach = Callable[..., Attached]


@pytest.fixture
def attach(fake_host: FakeHost) -> Attach:
    fake_host.multipathd.find_multipaths = "strict"

    def attach(portals: int = 1, wwid: str | None = None) -> Attached:
        volume = fake_host.iscsi_target(portals=portals).lun(1, size=GIB, wwid=wwid)
        connector = fake_host.connector("ISCSI", use_multipath=portals > 1)
        info = connector.connect_volume(volume.properties)
        fake_host.pass_time(1)
        fake_host.forget()
        return Attached(fake_host, volume, info["path"])

    return attach


# -- all is well -----------------------------------------------------------------------------------
def test_a_disk_is_extended_without_any_program(attach: Attach) -> None:
    one = attach()
    one.volume.grow(2 * GIB)
    assert one.extend() == 2 * GIB
    assert one.sizes() == {2 * GIB}
    assert one.fake.started == []


def test_every_path_and_then_the_map_are_extended_by_one_program(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    assert two.extend() == 2 * GIB
    assert two.sizes() == {2 * GIB}
    assert len(two.rescans()) == 2
    assert two.map is not None
    assert two.fake.started == [("multipathd", "resize", "map", two.map.path)]


def test_the_paths_that_the_caller_did_not_name_are_extended_too(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    assert two.extend(disks=two.disks[:1]) == 2 * GIB
    assert two.sizes() == {2 * GIB}


def test_a_map_with_a_friendly_name_is_extended(fake_host: FakeHost, attach: Attach) -> None:
    fake_host.multipathd.user_friendly_names = True
    two = attach(portals=2)
    assert two.map is not None
    assert two.map.label == "mpatha"
    two.volume.grow(2 * GIB)
    assert two.extend() == 2 * GIB
    assert two.sizes() == {2 * GIB}


def test_a_volume_that_has_not_grown_keeps_its_size(attach: Attach) -> None:
    two = attach(portals=2)
    assert two.extend() == GIB
    assert two.resizes() == 0


def test_extending_twice_changes_nothing_the_second_time(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    assert two.extend() == 2 * GIB
    two.fake.forget()
    assert two.extend() == 2 * GIB
    assert two.resizes() == 0


def test_nothing_is_done_about_other_volumes(fake_host: FakeHost, attach: Attach) -> None:
    other = attach(portals=2)
    others = other.disks
    other.volume.grow(3 * GIB)
    one = attach(portals=2)
    one.volume.grow(2 * GIB)
    mine = [disk for disk in one.disks if disk not in others]
    over = multipath.find_map_over(one.host.sysfs, mine[0])
    call = Call("extend", one.host.clock, 600)
    assert scsi_resize.extend(one.host, call, mine, over) == 2 * GIB
    assert {block.read_size(one.host.sysfs, disk.name) for disk in others} == {GIB}
    assert ("multipathd", "reconfigure") not in fake_host.started


def test_with_an_execute_function_of_the_services_all_is_done_by_programs(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    call = Call("extend", two.host.clock, 600)
    assert scsi_resize.extend(two.fake.foreign_host, call, two.disks, two.map) == 2 * GIB
    assert two.sizes() == {2 * GIB}
    assert {words[0] for words in two.fake.started} <= {
        "tee",
        "/lib/udev/scsi_id",
        "multipathd",
    }


def test_a_disk_without_page_83_is_extended_without_being_asked_for_it(attach: Attach) -> None:
    one = attach(wwid="")
    one.volume.grow(2 * GIB)
    assert one.extend() == 2 * GIB
    assert {change.kind for change in one.fake.changes} == {"rescan"}


def test_a_device_that_no_disk_driver_has_taken_stops_it(attach: Attach) -> None:
    one = attach()
    nameless = [dataclasses.replace(disk, name="") for disk in one.disks]
    with pytest.raises(exception.BrickException, match="no disk driver has taken it"):
        one.extend(disks=nameless)


def test_no_path_at_all_is_an_error(fake_host: FakeHost) -> None:
    call = Call("extend", fake_host.host.clock, 600)
    with pytest.raises(exception.VolumePathsNotFound):
        scsi_resize.extend(fake_host.host, call, [], None)


# -- paths that are down ---------------------------------------------------------------------------
ALL_UP = "All paths need to be up to extend the device"


@pytest.mark.parametrize("portals", [1, 2])
def test_a_path_that_is_down_stops_it_before_anything_is_touched(
    attach: Attach, portals: int
) -> None:
    volume = attach(portals=portals)
    portal = volume.volume.target.portals[-1]
    down = volume.disk_by(portal)
    portal.kill()
    volume.fake.pass_time(30)
    volume.volume.grow(2 * GIB)
    with pytest.raises(exception.BrickException, match=ALL_UP) as error:
        volume.extend()
    assert str(down) in str(error.value)
    assert volume.sizes() == {GIB}
    assert volume.rescans() == []
    assert volume.resizes() == 0


def test_a_path_that_seems_up_but_does_not_answer_stops_it_too(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.target.portals[1].silent()
    two.volume.grow(2 * GIB)
    with pytest.raises(exception.BrickException, match=ALL_UP):
        two.extend()
    assert two.rescans() == []


def test_a_lun_that_is_unmapped_on_one_path_stops_it(attach: Attach) -> None:
    one = attach()
    one.volume.vanish()
    with pytest.raises(exception.BrickException, match="no such LUN"):
        one.extend()
    assert one.rescans() == []


def test_a_dead_path_that_is_not_in_the_map_does_not_matter(attach: Attach) -> None:
    two = attach(portals=2)
    first, second = (two.disk_by(portal) for portal in two.volume.target.portals)
    over = two.map
    assert over is not None
    multipath.del_path(two.host, Call("test", two.host.clock, 60), second.path)
    two.fake.pass_time(1)
    assert multipath.read_members(two.host.sysfs, over) == [first]
    two.volume.target.portals[1].kill()
    two.fake.pass_time(30)
    two.volume.grow(2 * GIB)
    call = Call("extend", two.host.clock, 600)
    assert scsi_resize.extend(two.host, call, [first, second], over) == 2 * GIB
    assert block.read_size(two.host.sysfs, over.name) == 2 * GIB
    assert block.read_size(two.host.sysfs, second.name) == GIB


# -- the wrong volume ------------------------------------------------------------------------------
@pytest.mark.parametrize("portals", [1, 2])
def test_a_lun_that_is_another_volume_by_now_is_not_taken_for_a_new_size(
    attach: Attach, portals: int
) -> None:
    volume = attach(portals=portals)
    volume.volume.remap(size=5 * GIB)
    with pytest.raises(exception.WrongVolume, match="leads to another volume"):
        volume.extend()
    assert volume.sizes() == {GIB}
    assert volume.rescans() == []


def test_paths_of_two_volumes_are_not_extended(fake_host: FakeHost, attach: Attach) -> None:
    attach()
    both = attach()
    with pytest.raises(exception.WrongVolume, match="lead to different volumes"):
        both.extend()
    assert both.rescans() == []


# -- sizes that differ -----------------------------------------------------------------------------
def keep_small(two: Attached, disk: Disk) -> None:
    """Have one path show the old size whatever its rescan says: its controller is behind."""
    behind = two.fake.device(disk.path)
    two.fake.faults.on_read = lambda name: (
        two.fake.devices.resize(behind, GIB) if behind.size != GIB else None
    )


def test_a_controller_that_knows_the_new_size_a_little_later_is_waited_for(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    keep_small(two, two.disks[0])
    two.fake.after(4, two.fake.faults.mend)
    assert two.extend() == 2 * GIB
    assert two.sizes() == {2 * GIB}


def test_a_rescan_that_fails_at_first_is_tried_again(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    two.fake.faults.failing_writes["rescan"] = errno.EIO
    two.fake.after(4, two.fake.faults.mend)
    assert two.extend() == 2 * GIB
    assert two.sizes() == {2 * GIB}


def test_paths_that_do_not_come_to_one_size_are_named_with_their_sizes(attach: Attach) -> None:
    two = attach(portals=2)
    first, second = two.disks
    two.volume.grow(2 * GIB)
    keep_small(two, second)
    with pytest.raises(exception.BrickException) as error:
        two.extend()
    assert f"{first} has {2 * GIB} bytes" in str(error.value)
    assert f"{second} has {GIB} bytes" in str(error.value)
    assert two.resizes() == 0


def test_a_rescan_that_fails_is_no_success(attach: Attach) -> None:
    one = attach()
    one.volume.grow(2 * GIB)
    one.fake.faults.failing_writes["rescan"] = errno.EIO
    with pytest.raises(exception.BrickException, match=r"its rescan failed: .*Input/output error"):
        one.extend()


def test_it_ends_at_the_deadline(attach: Attach) -> None:
    two = attach(portals=2)
    two.fake.faults.slow_writes["rescan"] = 3600
    began = two.fake.now
    with pytest.raises(exception.BrickException, match="rescan failed"):
        two.extend(limit_s=20)
    assert two.fake.now - began <= 21


# -- multipathd ------------------------------------------------------------------------------------
def test_a_map_that_cannot_be_resized_is_an_error(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    two.fake.faults.fail(*RESIZE, code=1, out="fail\n")
    with pytest.raises(processutils.ProcessExecutionError) as error:
        two.extend()
    assert error.value.exit_code == 1
    assert two.resizes() == 1


def test_fail_is_a_failure_though_the_exit_code_is_0(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    two.fake.faults.fail(*RESIZE, code=0, out="fail\n")
    with pytest.raises(processutils.ProcessExecutionError) as error:
        two.extend()
    assert error.value.exit_code == 1


@pytest.mark.parametrize("code", [0, 1])
def test_a_busy_daemon_is_asked_again(attach: Attach, code: int) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    two.fake.faults.fail(*RESIZE, code=code, out="timeout\n", times=5)
    assert two.extend() == 2 * GIB
    assert two.resizes() == 6


def test_a_daemon_that_stays_busy_is_an_error_after_two_minutes(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    two.fake.faults.fail(*RESIZE, code=0, out="timeout\n", times=1000)
    began = two.fake.now
    with pytest.raises(processutils.ProcessExecutionError, match="busy"):
        two.extend()
    assert 100 < two.fake.now - began < 140
    assert two.resizes() > 100


def test_a_daemon_that_stays_busy_is_asked_no_longer_than_the_deadline(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    two.fake.faults.fail(*RESIZE, code=0, out="timeout\n", times=1000)
    began = two.fake.now
    with pytest.raises(processutils.ProcessExecutionError, match="busy"):
        two.extend(limit_s=30)
    assert two.fake.now - began <= 30


def test_a_daemon_that_did_it_later_than_its_client_waited_is_not_asked_again(
    attach: Attach,
) -> None:
    two = attach(portals=2)
    over = two.map
    assert over is not None
    two.volume.grow(2 * GIB)
    two.fake.faults.fail(*RESIZE, code=0, out="timeout\n", times=1000)
    grown = two.fake.device(over.path)
    two.fake.after(5, lambda: two.fake.devices.resize(grown, 2 * GIB))
    assert two.extend() == 2 * GIB
    assert two.resizes() < 10


def test_a_client_that_hangs_is_an_error(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    two.fake.faults.hang(*RESIZE)
    with pytest.raises(processutils.ProcessExecutionError):
        two.extend()


def test_a_map_that_does_not_grow_is_an_error_though_multipathd_says_ok(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    two.fake.faults.fail(*RESIZE, code=0, out="ok\n")
    with pytest.raises(exception.BrickException) as error:
        two.extend()
    assert f"it has {GIB} bytes, they have {2 * GIB}" in str(error.value)


def test_a_map_is_never_made_smaller(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(GIB // 2)
    with pytest.raises(exception.BrickException, match="not made smaller"):
        two.extend()
    assert two.resizes() == 0


# -- by paths --------------------------------------------------------------------------------------
def extend_paths(one: Attached, *paths: str) -> int:
    return scsi_resize.extend_paths(one.host, Call("extend", one.host.clock, 600), paths)


def test_links_lead_to_the_disks_and_the_map_is_found(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    links = [f"/dev/disk/by-path/{name}" for name in two.host.dev.names("disk/by-path")]
    assert len(links) == 2
    assert extend_paths(two, *links) == 2 * GIB
    assert two.sizes() == {2 * GIB}


def test_the_map_itself_is_a_path_of_the_volume(attach: Attach) -> None:
    two = attach(portals=2)
    two.volume.grow(2 * GIB)
    assert extend_paths(two, two.path) == 2 * GIB
    assert two.sizes() == {2 * GIB}


def test_a_link_that_leads_nowhere_is_a_path_that_is_down(attach: Attach) -> None:
    one = attach()
    with pytest.raises(exception.BrickException, match=ALL_UP):
        extend_paths(one, one.path, "/dev/disk/by-path/gone")
    two = attach(portals=2)
    assert extend_paths(two, two.path, "/dev/disk/by-path/gone") == GIB


def test_paths_to_different_maps_are_refused(attach: Attach) -> None:
    one, other = attach(portals=2), attach(portals=2)
    with pytest.raises(exception.BrickException, match="lead to different maps"):
        extend_paths(one, one.path, other.path)
