# SPDX-License-Identifier: Apache-2.0
"""Detaching Fibre Channel volumes: what is removed, and that nothing is lost (FC-16 to FC-20)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.fc_storage import FcVolume
from os_brick.tests.unit.initiator.connectors.fc_helpers import attached, prepared
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import changes, commands, disk_names

BOTH = pytest.mark.parametrize("multipath", [False, True])
FAILURES = (exception.BrickException, processutils.ProcessExecutionError, OSError)


def lose_all(volume: FcVolume, **times: float) -> None:
    """Take all ports of the volume's array out of the fabric."""
    for port in volume.array.ports:
        port.lose(**times)


# -- what is removed -----------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("foreign", [False, True])
def test_everything_an_attach_made_goes(
    fake_host: FakeHost, multipath: bool, foreign: bool
) -> None:
    volume = prepared(fake_host).lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath, foreign=foreign)
    info = connector.connect_volume(volume.properties)
    fake_host.write(info["path"], b"data")
    assert connector.disconnect_volume(volume.properties, info) is None
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize(
    "told",
    [
        lambda info, properties: info,
        lambda info, properties: None,
        lambda info, properties: {},
        lambda info, properties: properties,
        lambda info, properties: properties | {"device_path": info["path"]},
        lambda info, properties: json.loads(json.dumps(info)),
        lambda info, properties: info | {"path": info["path"].encode()},
        lambda info, properties: info | {"path": "/dev/sdz"},
        lambda info, properties: {"path": "/dev/disk/by-path/pci-0000:99:00.0-fc-0x1-lun-1"},
        lambda info, properties: {"path": "/dev/dm-7", "type": "block"},
        lambda info, properties: {"path": "/dev/x", "multipath_id": "FAKE", "scsi_wwn": "FAKE"},
    ],
    ids=[
        *("info", "none", "empty", "properties", "used", "json", "bytes"),
        *("stale", "foreign-link", "stale-map", "nonsense"),
    ],
)
def test_whatever_the_caller_says_was_used_nothing_is_lost(
    fake_host: FakeHost, multipath: bool, told: Callable[[Any, Any], Any]
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, told(info, volume.properties))
    assert volume.data == b"data"
    assert fake_host.lost == []
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("then", [False, True])
def test_the_multipath_setting_may_have_changed_since(fake_host: FakeHost, then: bool) -> None:
    _connector, volume, info = attached(fake_host, multipath=then)
    fake_host.write(info["path"], b"data")
    other = fake_host.connector("FIBRE_CHANNEL", use_multipath=not then)
    other.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
def test_detach_of_what_is_not_there_is_success_without_a_change(
    fake_host: FakeHost, multipath: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    connector.disconnect_volume(volume.properties, info)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info)
    connector.disconnect_volume(volume.properties, None)
    assert fake_host.journal == []
    assert fake_host.leftovers() == []


def test_a_host_without_fibre_channel_has_nothing_to_detach(fake_host: FakeHost) -> None:
    volume = fake_host.fc_array(1).lun(1)
    fake_host.connector("FIBRE_CHANNEL").disconnect_volume(volume.properties, None)
    assert fake_host.journal == []


@BOTH
def test_other_luns_of_the_target_stay(fake_host: FakeHost, multipath: bool) -> None:
    array = prepared(fake_host)
    first, second = array.lun(1), array.lun(2)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    one = connector.connect_volume(first.properties)
    two = connector.connect_volume(second.properties)
    connector.disconnect_volume(first.properties, one)
    assert {disk.wwid for disk in fake_host.disks()} == {second.wwid}
    fake_host.write(two["path"], b"still here")
    connector.disconnect_volume(second.properties, two)
    assert second.data == b"still here"
    assert fake_host.leftovers() == []


def test_disks_that_never_joined_the_map_go_too(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    over = fake_host.multipathd.maps()[0]
    fake_host.mapper.release(over, over.slaves[1])
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_paths_of_the_map_by_ports_that_are_not_named_go_too(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    connector.disconnect_volume(volume.connection(ports=[1]), info)
    assert fake_host.leftovers() == []


@BOTH
def test_no_link_leads_the_detach(fake_host: FakeHost, multipath: bool) -> None:
    array = prepared(fake_host)
    volume, other = array.lun(1), array.lun(2)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    connector.connect_volume(other.properties)
    victims = {disk.name for disk in fake_host.disks()}
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    links = connector.get_volume_paths(volume.properties)
    assert len(links) == 4
    fake_host.stale_link(links[0], min(victims))
    fake_host.stale_link(links[1], "/dev/nowhere")
    fake_host.stale_link(links[2], "/dev/null")
    fake_host.stale_link(f"/dev/disk/by-id/scsi-{volume.wwid}", min(victims))
    connector.disconnect_volume(volume.properties, info)
    assert set(disk_names(fake_host)) == victims


@BOTH
def test_without_links_the_disks_are_found_all_the_same(
    fake_host: FakeHost, multipath: bool
) -> None:
    fake_host.delays.udev_s = 100
    connector, volume, info = attached(fake_host, multipath=multipath, hbas=1)
    assert connector.get_volume_paths(volume.properties) == []
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.disks() == []


def test_no_tool_is_asked_and_no_device_read_to_find_the_volume(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info)
    assert changes(fake_host, "read") == []
    assert [command[:2] for command in fake_host.started] == [
        ("sync", "/dev/dm-0"),
        ("multipath", "-f"),
    ]


def test_dangling_links_are_removed(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=False)
    fake_host.pass_time(1)
    fake_host.udev.forgets_links = True
    connector.disconnect_volume(volume.properties, info)
    assert [one for one in fake_host.leftovers() if "/dev/disk/by-id/scsi-" in one] == []


def test_the_order_of_a_multipath_detach(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info)

    def first(text: str) -> int:
        return next(number for number, line in enumerate(fake_host.journal) if text in line)

    assert first("sync /dev/dm-0") < first("multipath -f") < first("delete sd")


def test_removal_is_waited_for(fake_host: FakeHost) -> None:
    fake_host.delays.removal_s = 25
    connector, volume, info = attached(fake_host, multipath=True)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.disks() == []


def test_multipathd_lets_go_before_the_detach_returns(fake_host: FakeHost) -> None:
    fake_host.delays.multipath_drop_s = 1000
    connector, volume, info = attached(fake_host, multipath=True)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.multipathd.paths == []


# -- never lose data -----------------------------------------------------------------------
@BOTH
def test_no_path_readable_at_that_moment_loses_nothing(
    fake_host: FakeHost, multipath: bool
) -> None:
    """The existing library deletes every disk unflushed here, and reports success."""
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    before = fake_host.inventory()
    lose_all(volume, dev_loss_s=36000)
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info)
    assert changes(fake_host, "delete") == []
    assert fake_host.inventory() == before
    assert fake_host.lost == []
    for port in volume.array.ports:
        port.restore()
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize("told", [True, False], ids=["info", "none"])
def test_no_path_readable_and_multipath_off_by_now(
    fake_host: FakeHost, multipath: bool, told: bool
) -> None:
    _connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    with fake_host.open(info["path"]) as opening:
        opening.write(b"first ")  # written out by the close
    fake_host.write(info["path"], b"data")
    lose_all(volume, dev_loss_s=36000)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=not multipath)
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info if told else None)
    assert changes(fake_host, "delete") == []
    assert fake_host.lost == []


@pytest.mark.parametrize("protocol", ["ISCSI", "FIBRE_CHANNEL"])
def test_a_single_disk_that_multipathd_claimed_is_written_out(
    fake_host: FakeHost, protocol: str
) -> None:
    """The map holds the disk open, so that its user's close leaves the dirty pages there."""
    fake_host.fc_hbas(1)
    volume = (fake_host.iscsi_target() if protocol == "ISCSI" else fake_host.fc_array()).lun(1)
    connector = fake_host.connector(protocol)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    assert fake_host.multipathd.maps()
    with fake_host.open(info["path"]) as opening:
        opening.write(b"data")
    assert volume.data == b""
    connector.disconnect_volume(volume.properties, None)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_a_path_that_is_down_does_not_keep_a_map_that_was_used(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    with fake_host.open(info["path"]) as opening:
        opening.write(b"data")
    volume.array.ports[0].lose(dev_loss_s=36000)
    connector.disconnect_volume(volume.properties, None)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("ignore_errors", [False, True])
def test_a_failed_write_out_with_and_without_force(
    fake_host: FakeHost, multipath: bool, force: bool, ignore_errors: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.write(info["path"], b"data")
    fake_host.faults.fail("sync", code=1, times=1)
    error: Any = None
    try:
        connector.disconnect_volume(volume.properties, info, force, ignore_errors)
    except FAILURES as exc:
        error = exc
    assert (error is None) == (force and ignore_errors)
    assert isinstance(error, exception.ExceptionChainer) == (force and not ignore_errors)
    if force:
        assert fake_host.leftovers() == []
    else:
        assert changes(fake_host, "delete") == []
        assert fake_host.lost == []


def test_every_mix_of_living_and_dead_paths(fake_host: FakeHost) -> None:
    array = prepared(fake_host, hbas=2, ports=2)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    for dead in range(3):
        volume = array.lun(dead + 1)
        info = connector.connect_volume(volume.properties)
        fake_host.pass_time(1)
        fake_host.write(info["path"], b"data")
        if dead < 2:
            array.ports[dead].lose(dev_loss_s=36000)
        connector.disconnect_volume(volume.properties, info)
        assert volume.data == b"data"
        assert fake_host.disks() == []
        array.ports[dead % 2].restore()


def test_a_queueing_map_without_paths(fake_host: FakeHost) -> None:
    fake_host.multipathd.no_path_retry = "queue"
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    lose_all(volume, dev_loss_s=36000)
    fake_host.pass_time(10)
    began = fake_host.now
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info)
    assert fake_host.now - began <= 600
    assert fake_host.multipathd.maps()[0].queueing
    connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("told", ["info", "properties", "used", "name"])
@pytest.mark.parametrize("friendly", [False, True])
def test_a_map_that_has_lost_all_its_paths_is_not_forgotten(
    fake_host: FakeHost, told: str, friendly: bool
) -> None:
    """The kernel removes the disks of a port that is away for long; the data waits in the map."""
    fake_host.multipathd.user_friendly_names = friendly
    fake_host.multipathd.no_path_retry = "queue"
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    over = fake_host.multipathd.maps()[0]
    opening = fake_host.open(info["path"])
    lose_all(volume, dev_loss_s=60)
    fake_host.pass_time(100)
    assert fake_host.disks() == []
    assert not over.gone
    device_info = {
        "info": info,
        "properties": volume.connection(multipath_id=volume.wwid),
        "used": {"path": info["path"]},
        "name": {"path": f"/dev/mapper/{'mpatha' if friendly else volume.wwid}"},
    }[told]
    properties = device_info if told == "properties" else volume.properties
    with pytest.raises(FAILURES):
        connector.disconnect_volume(properties, device_info)
    assert not over.gone
    assert fake_host.lost == []
    opening.is_open = False
    over.openings.clear()
    connector.disconnect_volume(properties, device_info, force=True, ignore_errors=True)
    assert over.gone


def without_paths(host: FakeHost) -> tuple[Any, FcVolume]:
    """Return a connector, and a volume whose map holds data and has lost its paths."""
    host.multipathd.no_path_retry = "queue"
    connector, volume, info = attached(host, multipath=True)
    host.pass_time(1)
    host.write(info["path"], b"data")
    host.open(info["path"])
    lose_all(volume, dev_loss_s=60)
    host.pass_time(100)
    assert host.disks() == []
    return connector, volume


def test_a_map_without_paths_by_a_name_of_the_kernel_may_be_anothers(fake_host: FakeHost) -> None:
    connector, volume = without_paths(fake_host)
    before = fake_host.inventory()
    fake_host.forget()
    with pytest.raises(exception.WrongVolume, match=f"dm-uuid-mpath-{volume.wwid}"):
        connector.disconnect_volume(volume.properties, {"path": "/dev/dm-0"})
    with pytest.raises(exception.ExceptionChainer, match="lost all its paths"):
        connector.disconnect_volume(volume.properties, {"path": "/dev/dm-0"}, force=True)
    assert fake_host.journal == []
    assert fake_host.inventory() == before
    assert fake_host.lost == []


def test_a_map_without_paths_that_is_known_to_be_anothers_is_left(fake_host: FakeHost) -> None:
    connector, volume = without_paths(fake_host)
    other = prepared(fake_host).lun(2)
    fake_host.forget()
    for path in ("/dev/dm-0", f"/dev/mapper/{volume.wwid}"):
        connector.disconnect_volume(other.properties, {"path": path, "scsi_wwn": other.wwid})
    assert fake_host.journal == []
    assert fake_host.lost == []


@BOTH
def test_a_volume_in_use_is_refused_naming_the_user(fake_host: FakeHost, multipath: bool) -> None:
    fake_host.multipathd.find_multipaths = "strict"
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    fake_host.mount(info["path"], "/mnt")
    before = fake_host.inventory()
    with pytest.raises(exception.DeviceInUse, match="/mnt"):
        connector.disconnect_volume(volume.properties, info)
    assert fake_host.inventory() == before


def test_a_port_lost_while_it_is_deleted_is_no_failure(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    volume.array.ports[0].lose(dev_loss_s=30)
    connector.disconnect_volume(volume.properties, info)
    fake_host.pass_time(60)
    volume.array.ports[0].restore()
    assert changes(fake_host, "scan") == changes(fake_host, "scan")[:4]


def test_could_not_look_is_an_error(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    for pattern in (
        "sys/class/fc_host",
        "sys/class/fc_host/host3/port_name",
        "sys/class/fc_remote_ports",
        "sys/class/fc_remote_ports/*/port_name",
        "sys/class/fc_transport",
        "sys/bus/scsi/devices/*/block",
    ):
        fake_host.faults.unreadable(pattern)
        with pytest.raises(OSError, match="Permission denied"):
            connector.disconnect_volume(volume.properties, info)
        fake_host.faults.mend()
    assert changes(fake_host, "delete") == []
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_leftovers_are_announced(fake_host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.faults.fail("sync", times=1)
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info)
    assert "leftovers may remain in the system" in caplog.text


# -- whose disk it is ------------------------------------------------------------------------
@BOTH
def test_another_volume_that_has_the_lun_by_now_is_left_alone(
    fake_host: FakeHost, multipath: bool
) -> None:
    connector, old, old_info = attached(fake_host, multipath=multipath)
    connector.disconnect_volume(old.properties, old_info)
    new = old.remap()
    new_info = connector.connect_volume(new.properties)
    connector.disconnect_volume(old.properties, old_info)
    fake_host.write(new_info["path"], b"mine")
    connector.disconnect_volume(new.properties, new_info)
    assert new.data == b"mine"


@pytest.mark.parametrize("force", [False, True])
def test_disks_of_different_volumes_at_the_address(fake_host: FakeHost, force: bool) -> None:
    """One port shows another volume under the LUN: nobody but the caller can tell which is his."""
    array = prepared(fake_host, hbas=1, ports=2)
    volume, other = array.lun(1), array.lun(2)
    connector = fake_host.connector("FIBRE_CHANNEL")
    info = connector.connect_volume(volume.properties)
    array.show([9, 1], other.unit)
    for disk in fake_host.disks():
        if disk.device is not None:
            fake_host.scsi.rescan(disk.device)
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, None, force=force)
    assert changes(fake_host, "delete") == []
    connector.disconnect_volume(volume.properties, info)
    assert [disk.wwid for disk in fake_host.disks()] == [other.wwid]


def test_behind_a_port_that_is_not_meant_the_lun_may_be_anothers(fake_host: FakeHost) -> None:
    first, second = fake_host.fc_hbas(2)
    array = fake_host.fc_array(1, seen=False)
    foreign = fake_host.fc_array(array.wwpns, seen=False)  # another view of the same port
    fake_host.fc.zone(first, array.ports[0])
    fake_host.fc.zone(second, foreign.ports[0])
    volume, others = array.lun(1), foreign.lun(1)
    mine = volume.connection(initiator_target_map={first.wwpn: array.wwpns})
    theirs = others.connection(initiator_target_map={second.wwpn: array.wwpns})
    connector = fake_host.connector("FIBRE_CHANNEL")
    their_info = connector.connect_volume(theirs)
    info = connector.connect_volume(mine)
    connector.disconnect_volume(mine, info)
    assert [disk.wwid for disk in fake_host.disks()] == [others.wwid]
    connector.disconnect_volume(theirs, their_info)
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize("wwid", [None, ""], ids=["identity", "none"])
def test_with_the_zones_of_another_host_the_path_used_names_the_volume(
    fake_host: FakeHost, multipath: bool, wwid: str | None
) -> None:
    """After a live migration (bug 1406161) the detach may be given the other host's properties."""
    if not multipath:
        fake_host.multipathd.find_multipaths = "strict"
    array = prepared(fake_host, hbas=1, ports=1)
    volume = array.lun(1, wwid=wwid)
    mine = volume.connection(initiator_target_map={fake_host.fc.hbas[0].wwpn: array.wwpns})
    theirs = volume.connection(initiator_target_map={"2100000000000001": array.wwpns})
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath and wwid is None)
    info = connector.connect_volume(mine)
    fake_host.write(info["path"], b"data")
    told = theirs | {"device_path": info["path"]}
    connector.disconnect_volume(told, told)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_with_the_zones_of_another_host_all_paths_go(fake_host: FakeHost) -> None:
    fake_host.multipathd.stop()
    array = prepared(fake_host, hbas=2, ports=2)
    volume, other = array.lun(1), array.lun(2)
    connector = fake_host.connector("FIBRE_CHANNEL")
    connector.connect_volume(other.properties)
    fake_host.pass_time(1)
    fake_host.remember(anew=True)
    info = connector.connect_volume(volume.properties)
    theirs = volume.connection(initiator_target_map={"2100000000000001": array.wwpns})
    connector.disconnect_volume(theirs, {"path": info["path"]})
    assert fake_host.leftovers() == []
    assert {disk.wwid for disk in fake_host.disks()} == {other.wwid}


def test_with_the_zones_of_another_host_a_link_of_another_volume_names_none(
    fake_host: FakeHost,
) -> None:
    fake_host.multipathd.stop()
    array = prepared(fake_host, hbas=2, ports=1)
    volume, other = array.lun(1), array.lun(2)
    connector = fake_host.connector("FIBRE_CHANNEL")
    theirs = volume.connection(initiator_target_map={"2100000000000001": array.wwpns})
    used = connector.connect_volume(other.properties)["path"]
    mine = connector.connect_volume(volume.properties)["path"]
    fake_host.pass_time(1)
    before = disk_names(fake_host)
    connector.disconnect_volume(theirs, {"path": used})
    connector.disconnect_volume(theirs, {"path": mine, "scsi_wwn": other.wwid})
    fake_host.stale_link(mine, fake_host.disks()[0].name)
    connector.disconnect_volume(theirs, {"path": mine})
    assert disk_names(fake_host) == before


def test_stray_disks_of_the_volume_behind_such_a_port_go_too(fake_host: FakeHost) -> None:
    array = prepared(fake_host, hbas=2, ports=1)
    volume = array.lun(1)
    first = fake_host.fc.hbas[0]
    mine = volume.connection(initiator_target_map={first.wwpn: array.wwpns})
    connector = fake_host.connector("FIBRE_CHANNEL")
    info = connector.connect_volume(mine)
    for hba in fake_host.fc.hbas:
        for target in hba.host.targets:
            fake_host.scsi.scan(target, None)
    fake_host.pass_time(1)
    assert len(fake_host.disks()) == 2
    connector.disconnect_volume(mine, info)
    assert fake_host.leftovers() == []


def test_a_disk_under_an_old_target_number_goes_too(fake_host: FakeHost) -> None:
    array = prepared(fake_host, hbas=1, ports=1)
    volume = array.lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL")
    array.ports[0].lose(dev_loss_s=10)
    fake_host.pass_time(20)
    array.ports[0].restore()
    info = connector.connect_volume(volume.properties)
    assert str(fake_host.disks()[0].device.hctl) == "2:0:1:1"  # type: ignore[union-attr]
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


# -- after the attach ------------------------------------------------------------------------
@BOTH
def test_lun_reuse_right_after_the_detach(fake_host: FakeHost, multipath: bool) -> None:
    connector, old, info = attached(fake_host, multipath=multipath)
    fake_host.write(info["path"], b"old")
    connector.disconnect_volume(old.properties, info)
    new = old.remap()
    again = connector.connect_volume(new.properties)
    assert again["scsi_wwn"] == new.wwid
    fake_host.write(again["path"], b"new")
    connector.disconnect_volume(new.properties, again)
    assert (old.data, new.data) == (b"old", b"new")
    assert fake_host.leftovers() == []


# -- size ------------------------------------------------------------------------------------
@BOTH
def test_extend(fake_host: FakeHost, multipath: bool) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    size = 2 * volume.size
    volume.grow(size)
    before = copy.deepcopy(info)
    assert connector.extend_volume(volume.properties) == size
    assert fake_host.device(info["path"]).size == size
    assert {disk.size for disk in fake_host.disks()} == {size}
    assert info == before


def test_extend_of_what_is_not_here(fake_host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    volume = prepared(fake_host).lun(1)
    properties = volume.connection(auth_password="a secret that slipped in")
    with pytest.raises(exception.VolumePathsNotFound):
        fake_host.connector("FIBRE_CHANNEL").extend_volume(properties)
    assert "Couldn't find any volume paths on the host" in caplog.text
    assert "slipped" not in caplog.text


# -- paths -----------------------------------------------------------------------------------
def test_the_paths_of_a_volume_are_links_that_exist(fake_host: FakeHost) -> None:
    volume = prepared(fake_host).lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL")
    assert connector.get_search_path() == "/dev/disk/by-path"
    assert connector.get_volume_paths(volume.properties) == []
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.forget()
    assert connector.get_volume_paths(volume.properties) == [
        f"/dev/disk/by-path/pci-0000:05:00.{hba}-fc-0x{wwpn}-lun-1"
        for hba in (0, 1)
        for wwpn in volume.array.wwpns
    ]
    assert fake_host.journal == []


def test_commands_of_the_tools_name_the_map(fake_host: FakeHost) -> None:
    fake_host.multipathd.user_friendly_names = True
    connector, volume, info = attached(fake_host, multipath=True)
    connector.disconnect_volume(volume.properties, info)
    assert commands(fake_host, "multipath", "-f") == [("multipath", "-f", "mpatha")]
