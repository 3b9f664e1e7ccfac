# SPDX-License-Identifier: Apache-2.0
"""The fake's multipathd, multipath and dmsetup."""

from __future__ import annotations

import pytest

from os_brick import exception
from os_brick.initiator.linux import multipath
from os_brick.initiator.linux.scsi import Disk, Hctl, read_disk
from os_brick.testing import FakeHost
from os_brick.testing.storage import Volume
from os_brick.tests.unit.testing.helpers import new_call, run, session_to


@pytest.fixture
def volume(fake_host: FakeHost) -> Volume:
    """A volume on two paths."""
    made = fake_host.iscsi_target(portals=2).lun(1)
    for index in range(2):
        session_to(fake_host, made.target, index)
    return made


def disk_of(host: FakeHost, number: int) -> Disk:
    disk = read_disk(host.host.sysfs, Hctl(number, 0, 0, 1))
    assert disk is not None
    return disk


def map_of(host: FakeHost) -> multipath.Map | None:
    return multipath.find_map_over(host.host.sysfs, disk_of(host, 2))


def test_two_paths_become_one_map(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.pass_time(0.01)
    assert map_of(fake_host) is None, "multipathd is told late"
    fake_host.pass_time(1)
    found = map_of(fake_host)
    assert found is not None
    assert (found.name, found.label, found.wwid) == ("dm-0", volume.wwid, volume.wwid)
    assert [one.name for one in multipath.read_members(fake_host.host.sysfs, found)] == [
        "sda",
        "sdb",
    ]
    assert multipath.is_ready(fake_host.host.sysfs, found)
    dev = fake_host.host.dev
    assert dev.link_name("mapper", volume.wwid) == "dm-0"
    assert dev.link_name("disk/by-id", f"scsi-{volume.wwid}") == "dm-0", "the map has priority"
    assert fake_host.host.sysfs.text("class/iscsi_session/session1/recovery_tmo") == "5"


def test_friendly_names_are_kept_by_wwid(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.multipathd.user_friendly_names = True
    fake_host.pass_time(1)
    found = map_of(fake_host)
    assert found is not None
    assert (found.label, found.wwid) == ("mpatha", volume.wwid)
    assert run(fake_host, f"multipath -f {volume.wwid}")[0] == 0
    assert map_of(fake_host) is not None, "by wwid nothing happens"
    assert run(fake_host, "multipath -f mpatha")[0] == 0
    assert map_of(fake_host) is None


def test_strict_makes_no_map_until_the_wwid_is_known(fake_host: FakeHost) -> None:
    fake_host.multipathd.find_multipaths = "strict"
    volume = fake_host.iscsi_target(portals=2).lun(1)
    for index in range(2):
        session_to(fake_host, volume.target, index)
    fake_host.pass_time(10)
    assert map_of(fake_host) is None
    assert run(fake_host, f"multipath -a {volume.wwid}")[1] == f"wwid '{volume.wwid}' added\n"
    assert run(fake_host, "multipathd add path /dev/sda") == (0, "ok\n", "")
    fake_host.pass_time(1)
    assert map_of(fake_host) is not None


def test_a_slow_daemon_makes_its_map_late(fake_host: FakeHost) -> None:
    fake_host.delays.multipath_build_s = 8
    volume = fake_host.iscsi_target().lun(1)
    session_to(fake_host, volume.target)
    fake_host.pass_time(7)
    assert map_of(fake_host) is None
    fake_host.pass_time(2)
    assert map_of(fake_host) is not None


def test_without_the_daemon_its_client_fails(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.multipathd.stop()
    fake_host.pass_time(5)
    assert map_of(fake_host) is None
    assert run(fake_host, "multipathd show status")[0] == 1
    fake_host.restart_multipathd()
    fake_host.pass_time(5)
    assert map_of(fake_host) is not None


def test_paths_are_listed_in_the_format_asked_for(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.pass_time(1)
    assert fake_host.execute("multipathd", "show", "paths", "raw", "format", "%d %i")[0] == (
        "sda 2:0:0:1\nsdb 3:0:0:1\n"
    )
    assert run(fake_host, "multipathd show paths raw format %d")[1] == "sda\nsdb\n"
    assert run(fake_host, "multipathd show status")[1].startswith("path checker states:\n")


def test_a_deleted_path_leaves_the_map_and_the_daemon_after_a_while(
    fake_host: FakeHost, volume: Volume
) -> None:
    fake_host.pass_time(1)
    fake_host.delays.multipath_drop_s = 2
    fake_host.host.changes.delete(new_call(fake_host), disk_of(fake_host, 2))
    assert run(fake_host, "multipathd show paths raw format %d")[1] == "sda\nsdb\n"
    fake_host.pass_time(3)
    assert run(fake_host, "multipathd show paths raw format %d")[1] == "sdb\n"
    assert fake_host.host.sysfs.names("block/dm-0/slaves") == ["sdb"]


@pytest.mark.parametrize("used", [False, True])
def test_a_map_without_paths_goes_unless_it_is_used(
    fake_host: FakeHost, volume: Volume, used: bool
) -> None:
    fake_host.pass_time(1)
    if used:
        fake_host.open("/dev/dm-0")
    for number in (2, 3):
        fake_host.host.changes.delete(new_call(fake_host), disk_of(fake_host, number))
    fake_host.pass_time(1)
    assert fake_host.host.sysfs.exists("block/dm-0") == used


def test_a_map_in_use_is_not_removed(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.pass_time(1)
    opening = fake_host.open("/dev/dm-0")
    code, out, _err = run(fake_host, f"multipath -f {volume.wwid}")
    assert (code, "map in use" in out) == (1, True)
    assert run(fake_host, f"multipathd del map {volume.wwid}")[0] == 1
    assert run(fake_host, f"dmsetup remove {volume.wwid}")[0] == 1
    assert run(fake_host, f"dmsetup info -c --noheadings -o open {volume.wwid}")[1] == "1\n"
    opening.close()
    assert run(fake_host, f"dmsetup info -c --noheadings -o open {volume.wwid}")[1] == "0\n"
    assert run(fake_host, f"multipath -f {volume.wwid}")[0] == 0
    assert run(fake_host, f"dmsetup info -c --noheadings -o open {volume.wwid}")[0] == 1


def test_a_deferred_removal_waits_for_the_last_user(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.pass_time(1)
    opening = fake_host.open(f"/dev/mapper/{volume.wwid}")
    assert run(fake_host, f"dmsetup remove --force --deferred {volume.wwid}")[0] == 0
    assert map_of(fake_host) is not None
    opening.close()
    assert map_of(fake_host) is None


def test_usable_means_that_a_path_answers(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.pass_time(1)
    assert run(fake_host, "multipath -C dm-0")[0] == 0
    volume.target.portals[0].kill()
    assert run(fake_host, "multipath -C dm-0")[0] == 0
    volume.target.portals[1].kill()
    assert run(fake_host, "multipath -C dm-0")[0] == 1


def test_queueing_can_be_switched_off(fake_host: FakeHost) -> None:
    fake_host.multipathd.no_path_retry = "queue"
    volume = fake_host.iscsi_target().lun(1)
    session_to(fake_host, volume.target)
    fake_host.pass_time(1)
    fake_host.write("/dev/dm-0", b"x")
    volume.target.portals[0].kill()
    with pytest.raises(exception.ExecutionTimeout):
        fake_host.execute("sync", "/dev/dm-0", timeout=60)
    assert run(fake_host, f"multipath -f {volume.wwid}", timeout=60)[0] is None, "it hangs"
    assert run(fake_host, f"multipathd disablequeueing map {volume.wwid}") == (0, "ok\n", "")
    assert run(fake_host, "sync /dev/dm-0")[0] == 1


def test_a_map_is_resized_when_all_its_paths_have_the_size(
    fake_host: FakeHost, volume: Volume
) -> None:
    fake_host.pass_time(1)
    volume.grow(2 * 1024**3)
    call = new_call(fake_host)
    fake_host.host.changes.rescan(call, disk_of(fake_host, 2))
    assert run(fake_host, "multipathd resize map /dev/dm-0") == (1, "fail\n", "")
    fake_host.host.changes.rescan(call, disk_of(fake_host, 3))
    assert run(fake_host, "multipathd resize map /dev/dm-0") == (0, "ok\n", "")
    assert run(fake_host, "blockdev --getsize64 /dev/dm-0")[1] == f"{2 * 1024**3}\n"


def test_topology_is_printed(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.multipathd.user_friendly_names = True
    fake_host.pass_time(1)
    out = run(fake_host, "multipath -l /dev/sda")[1]
    assert out.startswith(f"mpatha ({volume.wwid}) dm-0 LIO-ORG,disk\n")
    assert "2:0:0:1 sda 8:0 active ready running" in out


def test_a_mounted_disk_gets_no_map(fake_host: FakeHost) -> None:
    fake_host.delays.multipath_build_s = 1
    volume = fake_host.iscsi_target().lun(1)
    session_to(fake_host, volume.target)
    fake_host.pass_time(0.5)
    fake_host.mount("/dev/sda", "/mnt/data")
    fake_host.pass_time(5)
    assert map_of(fake_host) is None


def test_mappings_that_are_not_multipath(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.pass_time(1)
    fake_host.put_on_top("/dev/dm-0", "vg-lv", "LVM-abc")
    assert fake_host.host.sysfs.names("block/dm-0/holders") == ["dm-1"]
    assert multipath.read_map(fake_host.host.sysfs, "dm-1") is None
    assert run(fake_host, f"multipath -f {volume.wwid}")[0] == 1
    assert fake_host.host.changes.is_claimed(new_call(fake_host), "dm-0")


def test_partition_mappings_go_with_their_map(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.pass_time(1)
    fake_host.put_on_top("/dev/dm-0", "x-part1", f"part1-mpath-{volume.wwid}")
    assert run(fake_host, f"multipath -f {volume.wwid}")[0] == 0
    assert fake_host.host.sysfs.names("block") == ["sda", "sdb"]
