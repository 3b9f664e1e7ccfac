# SPDX-License-Identifier: Apache-2.0
"""What others do meanwhile: ports go and come back, the array gives a LUN to another volume, and so
the kernel's names and links, and the paths of a map, become another volume's."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.device_mapper import MultipathMap
from os_brick.testing.fc_storage import FcArray, FcVolume, TargetPort
from os_brick.testing.storage import Unit
from os_brick.tests.unit.initiator.connectors.fc_helpers import attached, map_link, prepared
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side


def see(host: FakeHost, array: FcArray) -> None:
    """Have the first port of the host see all ports of an array; the kernel scans them itself."""
    for port in array.ports:
        host.fc.zone(host.fc.hbas[0], port)


def change_over(host: FakeHost, port: TargetPort, neighbour: FcVolume) -> None:
    """Have the kernel give a port up that was lost for too long, with its disks, and find another
    array, whose disk gets the first name that is free."""
    port.lose(fast_io_fail_s=0, dev_loss_s=0)
    see(host, neighbour.array)


def only_map(host: FakeHost) -> MultipathMap:
    """Return the map, which is the only one."""
    (over,) = host.multipathd.maps()
    return over


def units(host: FakeHost) -> list[Unit | None]:
    """Return what the SCSI disks lead to, by name."""
    return [disk.storage()[1] for disk in host.disks()]


# -- ports -----------------------------------------------------------------------------------
def with_a_path_that_is_not_named(host: FakeHost) -> tuple[Any, FcVolume, dict[str, Any]]:
    """Return a connector, a volume and what its attach returned; the map has a path by a second
    port, which the kernel has scanned and the caller does not name."""
    host.fc_hbas(1)
    volume = host.fc_array(2, seen=False).lun(1)
    connector = host.connector("FIBRE_CHANNEL", use_multipath=True)
    see(host, volume.array)
    info = connector.connect_volume(volume.connection(ports=[0]))
    host.pass_time(2)
    assert len(only_map(host).slaves) == 2
    return connector, volume, info


@pytest.mark.parametrize("told", ["info", "properties", "used"])
def test_a_map_that_lives_by_a_port_that_is_not_named_goes_with_its_data(
    fake_host: FakeHost, told: str
) -> None:
    """The port that the caller names was lost for so long that the kernel has removed its disk."""
    fake_host.multipathd.user_friendly_names = True
    connector, volume, info = with_a_path_that_is_not_named(fake_host)
    fake_host.write(info["path"], b"data")
    volume.array.ports[0].lose(dev_loss_s=60)
    fake_host.pass_time(100)
    assert len(fake_host.disks()) == 1
    properties = volume.connection(ports=[0])
    if told == "properties":
        properties["multipath_id"] = volume.wwid
    device_info = {"info": info, "properties": properties, "used": {"path": info["path"]}}[told]
    connector.disconnect_volume(properties, device_info)
    assert volume.data == b"data"
    assert fake_host.lost == []
    assert fake_host.leftovers() == []


def test_a_map_that_lives_by_a_port_that_is_not_named_is_extended(fake_host: FakeHost) -> None:
    connector, volume, _info = with_a_path_that_is_not_named(fake_host)
    volume.array.ports[0].lose(dev_loss_s=60)
    fake_host.pass_time(100)
    volume.grow(2 * volume.size)
    properties = volume.connection(ports=[0], multipath_id=volume.wwid)
    assert connector.extend_volume(properties) == volume.size
    assert only_map(fake_host).size == volume.size


@pytest.mark.parametrize("told", [None, {}])
def test_a_map_that_its_paths_have_not_joined_again_is_not_given_up(
    fake_host: FakeHost, told: dict[str, Any] | None
) -> None:
    """The disks are back, but what was written is in the map, which multipathd has not given them
    to yet."""
    fake_host.multipathd.no_path_retry = "queue"
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    over = only_map(fake_host)
    # multipathd removes a map with its last path unless somebody has it open.
    opening = fake_host.open(info["path"])
    for port in volume.array.ports:
        port.lose(dev_loss_s=60)
    fake_host.pass_time(100)
    assert fake_host.disks() == []
    opening.close()
    fake_host.multipathd.stop()
    for port in volume.array.ports:
        port.restore()
    fake_host.pass_time(2)
    assert len(fake_host.disks()) == 4
    with pytest.raises(processutils.ProcessExecutionError, match="sync /dev/dm-0"):
        connector.disconnect_volume(volume.properties, told)
    assert fake_host.multipathd.maps() == [over]
    assert fake_host.lost == []
    fake_host.restart_multipathd()
    fake_host.pass_time(1)
    connector.disconnect_volume(volume.properties, told)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


# -- names -----------------------------------------------------------------------------------
@pytest.mark.parametrize("reused", [False, True])
def test_a_disk_that_goes_while_its_link_is_waited_for_is_not_returned(
    fake_host: FakeHost, reused: bool
) -> None:
    volume = prepared(fake_host, hbas=1, ports=1).lun(1)
    neighbour = fake_host.fc_array(1, seen=False).lun(5, mapped=reused)
    connector = fake_host.connector("FIBRE_CHANNEL")
    fake_host.delays.udev_s = 6
    fake_host.after(3, lambda: change_over(fake_host, volume.array.ports[0], neighbour))
    with pytest.raises(exception.VolumeDeviceNotFound, match="removed while it was made ready"):
        connector.connect_volume(volume.properties)
    assert units(fake_host) == [neighbour.unit] * reused


@pytest.mark.parametrize("reused", [False, True])
def test_a_map_that_goes_while_its_link_is_waited_for_is_not_returned(
    fake_host: FakeHost, reused: bool
) -> None:
    volume = prepared(fake_host, hbas=1, ports=1).lun(1)
    neighbour = fake_host.fc_array(1, seen=False).lun(5, mapped=reused)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    fake_host.delays.multipath_build_s = 1

    def make_udev_busy() -> None:
        fake_host.delays.udev_s = 6

    def go() -> None:
        fake_host.delays.udev_s = 0.02
        assert only_map(fake_host).name == "dm-0"
        change_over(fake_host, volume.array.ports[0], neighbour)

    fake_host.at(0.5, make_udev_busy)
    fake_host.at(4, go)
    with pytest.raises(exception.VolumeDeviceNotFound, match="removed while it was made ready"):
        connector.connect_volume(volume.properties)
    assert [one.wwid for one in fake_host.multipathd.maps()] == [neighbour.wwid] * reused
    assert units(fake_host) == [neighbour.unit] * reused


def test_the_disk_that_has_the_name_by_now_is_not_written_out_in_its_place(
    fake_host: FakeHost,
) -> None:
    """The detach asks the disk who it is, which does not answer; meanwhile the disk goes with its
    data, and a neighbour's gets its name."""
    connector, volume, info = attached(fake_host, multipath=False, hbas=1, ports=1)
    fake_host.multipathd.stop()
    neighbour = fake_host.fc_array(1, seen=False).lun(5)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    port = volume.array.ports[0]
    port.silence()
    fake_host.delays.disk_s = 0
    fake_host.after(5, lambda: change_over(fake_host, port, neighbour))
    with pytest.raises(exception.BrickException, match="sda has gone"):
        connector.disconnect_volume(volume.properties, info)
    assert units(fake_host) == [neighbour.unit]
    assert [one.data for one in fake_host.lost] == [b"data"]


@pytest.mark.parametrize("force", [False, True])
def test_the_map_over_the_disk_that_has_the_name_by_now_stays(
    fake_host: FakeHost, force: bool
) -> None:
    """The detach waits for the disk of a second path; meanwhile the first one goes, and a
    neighbour's disk gets its name, and a map. Without force that name is seen to be in use."""
    volume = prepared(fake_host, hbas=1, ports=2).lun(1)
    neighbour = fake_host.fc_array(1, seen=False).lun(5)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(volume.connection(ports=[0]))
    fake_host.pass_time(1)
    fake_host.delays.disk_s = 20
    second = fake_host.fc.find(fake_host.fc.hbas[0], volume.array.ports[1])
    assert second is not None
    assert second.target is not None
    fake_host.scsi.scan(second.target, 1)
    fake_host.delays.disk_s = 0.005
    fake_host.after(5, lambda: change_over(fake_host, volume.array.ports[0], neighbour))
    if not force:
        with pytest.raises(exception.DeviceInUse, match=r"sda is held .* Nothing was removed"):
            connector.disconnect_volume(volume.properties, info)
        assert units(fake_host) == [neighbour.unit, volume.unit]
    connector.disconnect_volume(volume.properties, info, force)
    assert only_map(fake_host).wwid == neighbour.wwid
    assert units(fake_host) == [neighbour.unit]


def test_a_link_of_two_disks_that_leads_to_the_unused_one_by_now(fake_host: FakeHost) -> None:
    """A virtual port's links by path do not name it, so both of its disks have the same one, and
    udev lets the last of them have it that there was news of, as after an extend."""
    fake_host.multipathd.stop()
    fake_host.fc_hbas(2, "vio")
    volume = fake_host.fc_array(1).lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL", arch="ppc64le")
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    used = fake_host.device(info["path"])
    (other,) = [disk for disk in fake_host.disks() if disk is not used]
    fake_host.stale_link(info["path"], f"/dev/{other.name}")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.lost == []
    assert fake_host.leftovers() == []


# -- LUNs ------------------------------------------------------------------------------------
def test_a_path_that_comes_while_the_link_is_waited_for_is_compared(fake_host: FakeHost) -> None:
    """The array shows another volume through its second port, which answers late."""
    fake_host.multipathd.stop()
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    array.lun([9, 1])
    fake_host.delays.udev_s = 25
    connector = fake_host.connector("FIBRE_CHANNEL")
    array.ports[1].silence()
    fake_host.after(13, array.ports[1].restore)
    with pytest.raises(exception.WrongVolume, match="lead to different volumes"):
        connector.connect_volume(volume.properties)
    assert fake_host.leftovers(settle_s=30) == []


@pytest.mark.parametrize("used", [False, True])
def test_a_path_of_the_map_that_leads_to_another_volume_by_now_is_removed(
    fake_host: FakeHost, used: bool
) -> None:
    """The service was killed and left its devices here. The array gave the LUN to another volume,
    and shows the first one to this host again under a new LUN: multipathd would have both in one
    map."""
    connector, volume, _info = attached(fake_host, multipath=True, hbas=1, ports=2)
    fake_host.pass_time(1)
    other = volume.remap()
    again = volume.array.volume(volume.unit, [7, 7], None, None)
    again.map()
    if used:
        fake_host.open(map_link(volume))
    info = connector.connect_volume(again.properties)
    over = only_map(fake_host)
    assert fake_host.device(info["path"]) is over
    assert [path.storage()[1] for path in over.slaves] == [volume.unit, volume.unit]
    assert other.data == b""


def first_path_remapped(host: FakeHost) -> tuple[Any, FcVolume, dict[str, Any], FcVolume]:
    """Return a connector, a volume, what its attach returned, and another volume, which the array
    shows under the LUN at the first port by now.

    Somebody has had the kernel read the pages again (an operator's ``rescan-scsi-bus.sh``).
    multipathd goes on with the path, which is the one that the map uses.
    """
    connector, volume, info = attached(host, multipath=True, hbas=1, ports=2)
    host.pass_time(1)
    other = volume.array.lun([1, 9])
    for disk in host.disks():
        assert disk.device is not None
        host.scsi.rescan(disk.device)
    over = only_map(host)
    over.slaves.sort(key=lambda path: path.storage()[1] is not other.unit)
    host.pass_time(1)
    assert over.storage()[1] is other.unit
    return connector, volume, info, other


@pytest.mark.parametrize("ignore_errors", [False, True])
def test_a_forced_detach_leaves_the_map_of_another_volume_that_a_path_of_ours_is_in(
    fake_host: FakeHost, ignore_errors: bool
) -> None:
    connector, volume, info, other = first_path_remapped(fake_host)
    over = only_map(fake_host)
    fake_host.mount(info["path"], "/mnt")
    fake_host.write(info["path"], b"data")
    fake_host.forget()
    properties = other.connection(ports=[0])
    connector.disconnect_volume(properties, None, force=True, ignore_errors=ignore_errors)
    assert fake_host.multipathd.maps() == [over]
    assert not over.errors
    assert [one for one in fake_host.journal if over.dm_name in one or over.name in one] == []
    fake_host.unmount("/mnt")
    assert volume.data == b"data"
    assert other.data == b""


def test_an_attach_takes_its_path_out_of_the_map_of_another_volume(fake_host: FakeHost) -> None:
    connector, volume, info, other = first_path_remapped(fake_host)
    over = only_map(fake_host)
    fake_host.mount(info["path"], "/mnt")
    fake_host.write(info["path"], b"data")
    again = connector.connect_volume(other.connection(ports=[0]))
    assert fake_host.device(again["path"]).storage()[1] is other.unit
    assert [path.storage()[1] for path in over.slaves] == [volume.unit]
    fake_host.unmount("/mnt")
    assert volume.data == b"data"
    assert other.data == b""


@pytest.mark.parametrize("force", [False, True])
def test_a_detach_writes_nothing_to_another_volume_by_a_path_in_the_map(
    fake_host: FakeHost, force: bool
) -> None:
    connector, volume, info, other = first_path_remapped(fake_host)
    over = only_map(fake_host)
    fake_host.write(info["path"], b"data")
    if force:
        with pytest.raises(exception.ExceptionChainer, match=r"WrongVolume.*was not written"):
            connector.disconnect_volume(volume.properties, info, force=True)
        assert fake_host.leftovers() == []
    else:
        there = fake_host.inventory()
        with pytest.raises(exception.WrongVolume, match="was not written"):
            connector.disconnect_volume(volume.properties, info)
        assert fake_host.inventory() == there
        assert over.dirty == [b"data"]
    assert other.data == b""


# -- detach: another attachment --------------------------------------------------------------
def attached_again(host: FakeHost, *, multipath: bool) -> tuple[Any, Any, Any, FcVolume, Any]:
    """Detach a volume, and attach it under another LUN, which another service does, of which the
    first one has not heard."""
    connector, volume, info = attached(host, multipath=multipath)
    host.pass_time(1)
    connector.disconnect_volume(volume.properties, info)
    volume.vanish()
    again = volume.array.volume(volume.unit, [5] * len(volume.array.ports), None, None)
    again.map()
    used = connector.connect_volume(again.properties)
    host.pass_time(1)
    return connector, volume, info, again, used


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("multipath", [False, True])
def test_a_second_detach_leaves_the_volume_alone_that_has_another_lun_by_now(
    fake_host: FakeHost, multipath: bool, known: bool, force: bool
) -> None:
    connector, volume, info, _again, used = attached_again(fake_host, multipath=multipath)
    there = fake_host.inventory()
    connector.disconnect_volume(volume.properties, info if known else None, force=force)
    assert fake_host.inventory() == there
    assert fake_host.device(used["path"]).storage()[1] is volume.unit


def test_a_forced_second_detach_leaves_what_is_in_use_under_another_lun(
    fake_host: FakeHost,
) -> None:
    connector, volume, info, again, used = attached_again(fake_host, multipath=True)
    fake_host.write(used["path"], b"of the next user")
    with fake_host.open(used["path"]):
        connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
        assert len(fake_host.disks()) == 4
    connector.disconnect_volume(again.properties, used)
    assert fake_host.lost == []
    assert volume.data == b"of the next user"


@pytest.mark.parametrize("force", [False, True])
def test_a_detach_leaves_what_an_attach_by_other_ports_has_made_meanwhile(
    fake_host: FakeHost, force: bool
) -> None:
    """The array names other ports at each attach. The next one of the volume, by another service,
    comes while the detach of the last one waits for the end of its disks."""
    volume = prepared(fake_host, hbas=1).lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    first, second = volume.connection(ports=[0]), volume.connection(ports=[1])
    info = connector.connect_volume(first)
    fake_host.pass_time(1)
    fake_host.delays.delete_s = 3

    def attach() -> Any:
        fake_host.pass_time(1)
        return connector.connect_volume(second)

    detached, used = side_by_side(
        fake_host, partial(connector.disconnect_volume, first, info, force=force), attach
    )
    fake_host.pass_time(10)
    assert detached is None
    assert fake_host.device(used["path"]).storage()[1] is volume.unit
    assert len(fake_host.disks()) == 1


def test_a_detach_looks_no_more_often_where_there_are_other_maps(fake_host: FakeHost) -> None:
    array = prepared(fake_host)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    counts = []
    for others in (0, 20):
        for number in range(others):
            connector.connect_volume(array.lun(10 + number).properties)
        volume = array.lun(1)
        info = connector.connect_volume(volume.properties)
        fake_host.pass_time(1)
        looks: list[str] = []
        fake_host.faults.on_read = looks.append
        connector.disconnect_volume(volume.properties, info)
        fake_host.faults.on_read = None
        counts.append(len(looks))
        volume.vanish()
    assert counts[1] <= counts[0] + 5
