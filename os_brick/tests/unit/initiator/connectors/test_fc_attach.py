# SPDX-License-Identifier: Apache-2.0
"""Attaching Fibre Channel volumes: which disk or map comes out, and what is scanned for it."""

from __future__ import annotations

import copy
import errno
import json
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.fc_helpers import (
    attached,
    map_link,
    prepared,
    scans,
)
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import (
    changes,
    commands,
    disk_names,
    side_by_side,
)

BOTH = pytest.mark.parametrize("multipath", [False, True])
FOREIGN = pytest.mark.parametrize("foreign", [False, True])


# -- what comes out ------------------------------------------------------------------------
@FOREIGN
def test_a_map_over_all_paths(fake_host: FakeHost, foreign: bool) -> None:
    volume = prepared(fake_host).lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True, foreign=foreign)
    info = connector.connect_volume(volume.properties)
    assert info == {
        "type": "block",
        "path": map_link(volume),
        "scsi_wwn": volume.wwid,
        "multipath_id": volume.wwid,
    }
    fake_host.pass_time(1)
    assert len(disk_names(fake_host)) == 4
    fake_host.write(info["path"], b"data")


@FOREIGN
def test_a_single_path_by_its_link(fake_host: FakeHost, foreign: bool) -> None:
    fake_host.multipathd.find_multipaths = "strict"
    array = prepared(fake_host, hbas=1, ports=1)
    volume = array.lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL", foreign=foreign)
    info = connector.connect_volume(volume.properties)
    assert info == {
        "type": "block",
        "path": f"/dev/disk/by-path/pci-0000:05:00.0-fc-0x{array.wwpns[0]}-lun-1",
        "scsi_wwn": volume.wwid,
    }
    assert connector.get_volume_paths(volume.properties) == [info["path"]]


def test_no_program_for_a_single_path_and_one_for_a_map(fake_host: FakeHost) -> None:
    array = prepared(fake_host)
    fake_host.connector("FIBRE_CHANNEL").connect_volume(array.lun(1).properties)
    assert fake_host.started == []
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    connector.connect_volume(array.lun(2).properties)
    assert [command[0] for command in fake_host.started] == ["multipath"]


@BOTH
def test_attaching_twice_gives_the_same(fake_host: FakeHost, multipath: bool) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    before = fake_host.inventory()
    fake_host.forget()
    assert connector.connect_volume(volume.properties) == info
    assert fake_host.inventory() == before
    assert scans(fake_host) == []


@BOTH
def test_the_callers_dictionary_stays_as_it_was(fake_host: FakeHost, multipath: bool) -> None:
    volume = prepared(fake_host).lun(1)
    wanted = {fake_host.fc.hbas[0].wwpn.upper(): [volume.array.wwpns[0].upper()]}
    properties = volume.connection(spelling=str.upper, initiator_target_map=wanted)
    before = copy.deepcopy(properties)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    info = connector.connect_volume(properties)
    connector.extend_volume(properties)
    connector.get_volume_paths(properties)
    connector.disconnect_volume(properties, info)
    assert properties == before


@pytest.mark.parametrize(
    "form",
    [
        {"spelling": str.upper},
        {"spelling": lambda wwpn: f"0x{wwpn}"},
        {"text_lun": True},
        {"target_wwn": None, "target_wwns": "plural"},
    ],
    ids=["upper", "prefixed", "text", "plural"],
)
def test_properties_in_every_form(fake_host: FakeHost, form: dict[str, Any]) -> None:
    volume = prepared(fake_host).lun(1)
    if form.get("target_wwns") == "plural":
        form = {"target_wwn": None, "target_wwns": volume.array.wwpns}
    properties = json.loads(json.dumps(volume.connection(**form)))
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(properties)
    assert info["path"] == map_link(volume)
    fake_host.pass_time(1)
    assert len(disk_names(fake_host)) == 4
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_a_different_lun_on_each_port(fake_host: FakeHost) -> None:
    volume = prepared(fake_host, hbas=1).lun([3, 300])
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    assert scans(fake_host) == ["host2 0 0 3", "host2 0 1 300"]
    assert len(disk_names(fake_host)) == 2
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize(
    ("mode", "lun", "kernel_lun", "link"),
    [
        (None, 255, 255, "255"),
        (None, 256, 256, "0x0100000000000000"),
        ("SAM2", 255, 255, "255"),
        ("SAM2", 256, 16640, "0x4100000000000000"),
        ("SAM3-flat", 1, 16385, "0x4001000000000000"),
    ],
)
def test_addressing_of_luns(
    fake_host: FakeHost, mode: str | None, lun: int, kernel_lun: int, link: str
) -> None:
    volume = prepared(fake_host, hbas=1, ports=1).lun(lun, addressing=mode)
    connector = fake_host.connector("FIBRE_CHANNEL")
    info = connector.connect_volume(volume.properties)
    assert scans(fake_host) == [f"host2 0 0 {kernel_lun}"]
    assert info["path"].endswith(f"-lun-{link}")
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_an_array_that_codes_the_lun_in_another_way(fake_host: FakeHost) -> None:
    volume = prepared(fake_host, hbas=1, ports=1).lun(1, reported="SAM3-flat")
    fake_host.scsi.scan(fake_host.fc.hbas[0].host.targets[0], None)  # as the kernel would by itself
    fake_host.pass_time(1)
    connector = fake_host.connector("FIBRE_CHANNEL")
    info = connector.connect_volume(volume.properties)
    assert info["path"].endswith("-lun-0x4001000000000000")
    assert connector.get_volume_paths(volume.properties) == [info["path"]]
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.disks() == []


def test_encrypted_volumes_get_a_link_of_our_own(fake_host: FakeHost) -> None:
    volume = prepared(fake_host).lun(1)
    properties = volume.connection(encrypted=True)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(properties)
    assert info["path"].startswith("/dev/disk/by-id/os-brick+dev+disk+by-id+dm-uuid-mpath-")
    connector.disconnect_volume(properties | {"device_path": info["path"]}, info)
    assert fake_host.leftovers() == []


def test_without_udev_the_kernel_name_is_better_than_nothing(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.delays.udev_s = 3600
    volume = prepared(fake_host, hbas=1, ports=1).lun(1)
    info = fake_host.connector("FIBRE_CHANNEL").connect_volume(volume.properties)
    assert info["path"] == "/dev/sda"
    assert "udev has made no link" in caplog.text


def test_a_late_link_is_waited_for(fake_host: FakeHost) -> None:
    fake_host.delays.udev_s = 4
    volume = prepared(fake_host, hbas=1, ports=1).lun(1)
    info = fake_host.connector("FIBRE_CHANNEL").connect_volume(volume.properties)
    assert info["path"].startswith("/dev/disk/by-path/pci-")


# -- what is scanned -----------------------------------------------------------------------
@BOTH
def test_two_hbas_with_four_remote_ports_two_of_them_connected(
    fake_host: FakeHost, multipath: bool
) -> None:
    array = prepared(fake_host, hbas=2, ports=4)
    volume = array.lun(1)
    array.ports[1].lose()
    array.ports[2].lose()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    connector.connect_volume(volume.properties)
    assert scans(fake_host) == ["host2 0 0 1", "host2 0 3 1", "host3 0 0 1", "host3 0 3 1"]


def test_ports_of_other_arrays_are_left_alone(fake_host: FakeHost) -> None:
    array = prepared(fake_host)
    other = fake_host.fc_array(2)
    volume, _foreign = array.lun(1), other.lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    assert len(disk_names(fake_host)) == 4
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_the_map_of_initiators_limits_what_is_scanned(fake_host: FakeHost) -> None:
    volume = prepared(fake_host).lun(1)
    first, second = (hba.wwpn for hba in fake_host.fc.hbas)
    ports = volume.array.wwpns
    properties = volume.connection(initiator_target_map={first: [ports[0]], second: [ports[1]]})
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(properties)
    assert scans(fake_host) == ["host2 0 0 1", "host3 0 1 1"]
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_what_is_there_is_not_scanned_again(fake_host: FakeHost) -> None:
    array = prepared(fake_host)
    volume = array.lun(1)
    fake_host.fc.scans = False
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    array.ports[1].lose()
    connector.connect_volume(volume.properties)
    array.ports[1].restore()
    fake_host.forget()
    connector.connect_volume(volume.properties)
    assert scans(fake_host) == ["host2 0 1 1", "host3 0 1 1"]
    fake_host.pass_time(1)
    assert len(fake_host.multipathd.maps()[0].slaves) == 4


def test_one_of_two_hbas_is_offline(fake_host: FakeHost) -> None:
    volume = prepared(fake_host).lun(1)
    fake_host.fc.set_state(fake_host.fc.hbas[0], "Linkdown")
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert info["path"] == map_link(volume)
    assert scans(fake_host) == ["host3 0 0 1", "host3 0 1 1"]
    properties = type(connector).get_connector_properties(None, host=fake_host.host)
    assert properties["wwpns"] == [fake_host.fc.hbas[1].wwpn]


def test_wildcards_until_the_target_port_is_known(fake_host: FakeHost) -> None:
    fake_host.fc_hbas(2)
    array = fake_host.fc_array(1, seen=False)
    volume = array.lun(4)
    fake_host.after(5, lambda: fake_host.fc.zone(fake_host.fc.hbas[1], array.ports[0]))
    connector = fake_host.connector("FIBRE_CHANNEL")
    info = connector.connect_volume(volume.properties)
    assert scans(fake_host)[:2] == ["host2 - - 4", "host2 - - 4"]
    assert info["scsi_wwn"] == volume.wwid


def test_no_wildcard_where_the_caller_forbids_it(fake_host: FakeHost) -> None:
    fake_host.fc_hbas(2)
    volume = fake_host.fc_array(1, seen=False).lun(4)
    connector = fake_host.connector("FIBRE_CHANNEL")
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound) as caught:
        connector.connect_volume(volume.connection(enable_wildcard_scan=False))
    assert scans(fake_host) == []
    assert volume.array.wwpns[0] in str(caught.value)


@pytest.mark.parametrize("attempts", [1, 3])
def test_wildcards_as_often_as_attempts_are_allowed(fake_host: FakeHost, attempts: int) -> None:
    fake_host.fc_hbas(1)
    volume = fake_host.fc_array(1, seen=False).lun(4)
    connector = fake_host.connector("FIBRE_CHANNEL", device_scan_attempts=attempts)
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(volume.properties)
    assert scans(fake_host) == ["host2 - - 4"] * attempts


def test_volumes_of_others_that_a_wildcard_brings_in_are_named(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.fc_hbas(1)
    there, coming = (fake_host.fc_array(1) for _ in range(2))
    there.lun(4)
    fake_host.connector("FIBRE_CHANNEL").connect_volume(there.lun(4).properties)
    coming.lun(4)
    array = fake_host.fc_array(1, seen=False)
    connector = fake_host.connector("FIBRE_CHANNEL")
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(array.lun(4).properties)
    told = [record.message for record in caplog.records if "by wildcard" in record.message]
    assert [line.rpartition(": ")[2] for line in told] == ["2:0:1:4"]


def test_a_wildcard_that_brings_in_the_volume_itself_is_no_news(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.fc_hbas(1)
    array = fake_host.fc_array(1, seen=False)
    fake_host.after(1, lambda: fake_host.fc.zone(fake_host.fc.hbas[0], array.ports[0]))
    fake_host.faults.slow_writes["scan"] = 2.0
    fake_host.connector("FIBRE_CHANNEL").connect_volume(array.lun(4).properties)
    assert "by wildcard" not in caplog.text


# -- luns that come late or never ----------------------------------------------------------
@BOTH
@pytest.mark.parametrize("seconds", [1, 3, 6])
def test_a_lun_that_is_mapped_late(fake_host: FakeHost, multipath: bool, seconds: float) -> None:
    volume = prepared(fake_host).lun(1, mapped=False)
    volume.map_after(seconds)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    assert info["scsi_wwn"] == volume.wwid
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
def test_a_lun_that_is_never_mapped(fake_host: FakeHost, multipath: bool, attempts: int) -> None:
    volume = prepared(fake_host, hbas=1, ports=1).lun(1, mapped=False)
    connector = fake_host.connector(
        "FIBRE_CHANNEL", use_multipath=multipath, device_scan_attempts=attempts
    )
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound) as caught:
        connector.connect_volume(volume.properties)
    assert scans(fake_host) == ["host2 0 0 1"] * attempts
    text = str(caught.value)
    assert text.startswith("Unable to find a Fibre Channel volume device.")
    assert f"LUN 1 of 0x{volume.array.wwpns[0]} on host2" in text
    assert fake_host.leftovers() == []


def test_a_scan_that_fails_is_tried_again(fake_host: FakeHost) -> None:
    volume = prepared(fake_host, hbas=1, ports=1).lun(1)
    fake_host.faults.failing_writes["scan"] = errno.EIO
    fake_host.after(3, fake_host.faults.mend)
    info = fake_host.connector("FIBRE_CHANNEL").connect_volume(volume.properties)
    assert info["scsi_wwn"] == volume.wwid


def test_a_port_that_comes_back_in_time(fake_host: FakeHost) -> None:
    array = prepared(fake_host, hbas=1, ports=1)
    volume = array.lun(1)
    array.ports[0].lose()
    fake_host.after(6, array.ports[0].restore)
    info = fake_host.connector("FIBRE_CHANNEL").connect_volume(volume.properties)
    assert info["scsi_wwn"] == volume.wwid


def test_ports_that_stay_down_are_named(fake_host: FakeHost) -> None:
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    for port in array.ports:
        port.lose(dev_loss_s=3600)
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound) as caught:
        fake_host.connector("FIBRE_CHANNEL").connect_volume(volume.properties)
    assert all(
        f"0x{wwpn} on host2: the port is Blocked" in str(caught.value) for wwpn in array.wwpns
    )
    assert scans(fake_host) == []


@BOTH
def test_a_port_without_the_lun_does_not_hold_up_the_others(
    fake_host: FakeHost, multipath: bool, caplog: pytest.LogCaptureFixture
) -> None:
    volume = prepared(fake_host, hbas=1, ports=2).lun(1)
    volume.array.show([7, 1], None)  # only the second port loses it
    began = fake_host.now
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    connector.connect_volume(volume.properties)
    assert fake_host.now - began < 2
    assert scans(fake_host) == ["host2 0 0 1", "host2 0 1 1"]
    assert f"without these paths: LUN 1 of 0x{volume.array.wwpns[1]} on host2" in caplog.text


def test_a_pair_of_the_map_that_nobody_sees_is_named(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.fc_hbas(2)
    array = fake_host.fc_array(1, seen=False)
    fake_host.fc.zone(fake_host.fc.hbas[0], array.ports[0])
    volume = array.lun(1)
    zones = {hba.wwpn: array.wwpns for hba in fake_host.fc.hbas}
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    connector.connect_volume(volume.connection(initiator_target_map=zones))
    assert f"by 0x{fake_host.fc.hbas[1].wwpn}: the port is not known here" in caplog.text


@BOTH
def test_what_is_only_to_be_told_fails_no_attach(
    fake_host: FakeHost, multipath: bool, caplog: pytest.LogCaptureFixture
) -> None:
    volume = prepared(fake_host, hbas=1, ports=1).lun(1)
    ended: list[str] = []

    def on_read(name: str) -> None:
        if name.startswith("dev/disk/by-"):
            ended.append(name)  # its link is what an attach looks for at last
        if ended and name.startswith("sys/class/fc_"):
            raise OSError(errno.EMFILE, "Too many open files", name)

    fake_host.faults.on_read = on_read
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    fake_host.faults.mend()
    assert "Too many open files" in caplog.text
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


# -- hosts without ---------------------------------------------------------------------------
def test_a_host_without_fibre_channel(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    volume = fake_host.fc_array(1).lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL")
    with pytest.raises(exception.NoFibreChannelHostsFound):
        connector.connect_volume(volume.properties)
    assert "We are unable to locate any Fibre Channel devices." in caplog.text
    assert type(connector).get_connector_properties(None, host=fake_host.host) == {}
    assert connector.get_volume_paths(volume.properties) == []


def test_multipath_enforced_without_multipathd(fake_host: FakeHost) -> None:
    volume = prepared(fake_host).lun(1)
    fake_host.multipathd.stop()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    with pytest.raises(exception.BrickException, match="Multipathing is enforced"):
        connector.connect_volume(volume.connection(enforce_multipath=True))
    assert scans(fake_host) == []
    assert not connector.supports_multipath()


def test_multipath_wanted_without_multipathd(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    volume = prepared(fake_host, hbas=1, ports=1).lun(1)
    fake_host.multipathd.stop()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert info["path"].startswith("/dev/disk/by-path/")
    assert "multipath_id" not in info
    assert "Multipathing is requested but the host doesn't support multipathing." in caplog.text
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("friendly", [False, True])
def test_strict_multipathd_is_told_of_a_first_path(fake_host: FakeHost, friendly: bool) -> None:
    fake_host.multipathd.find_multipaths = "strict"
    fake_host.multipathd.user_friendly_names = friendly
    volume = prepared(fake_host, hbas=1, ports=1).lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert info["path"] == map_link(volume)
    assert commands(fake_host, "multipath", "-a", volume.wwid)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_map_that_cannot_be_used_fails_the_attach_and_nothing_is_left(
    fake_host: FakeHost,
) -> None:
    volume = prepared(fake_host).lun(1)
    fake_host.faults.fail("multipath", "-C", times=99)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    with pytest.raises(processutils.ProcessExecutionError):
        connector.connect_volume(volume.properties)
    assert len(commands(fake_host, "multipath", "-C")) == 4
    assert fake_host.leftovers() == []


# -- dead and read-only ----------------------------------------------------------------------
def test_of_a_dead_and_a_living_path_the_living_one_is_handed_out(fake_host: FakeHost) -> None:
    fake_host.multipathd.find_multipaths = "strict"
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL")
    connector.connect_volume(volume.properties)
    array.ports[0].lose(dev_loss_s=3600)
    fake_host.pass_time(10)
    info = connector.connect_volume(volume.properties)
    assert f"0x{array.wwpns[1]}" in info["path"]
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_disk_that_cannot_be_read_is_passed_over(fake_host: FakeHost) -> None:
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    fake_host.faults.on_read = lambda name: (
        array.ports[0].lose(dev_loss_s=3600) if name.endswith("block/sdb/dev") else None
    )
    connector = fake_host.connector("FIBRE_CHANNEL")
    info = connector.connect_volume(volume.properties)
    fake_host.faults.on_read = None
    assert info["scsi_wwn"] == volume.wwid


@BOTH
def test_where_no_disk_can_be_read_none_is_handed_out(fake_host: FakeHost, multipath: bool) -> None:
    """A disk that is there may be dead (bug 1685969), also where multipath makes no map of it."""
    fake_host.multipathd.stop()
    array = prepared(fake_host, hbas=1, ports=1)
    fake_host.faults.on_read = lambda name: (
        array.ports[0].lose(dev_loss_s=3600) if name.endswith("2:0:0:1/state") else None
    )
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound, match=r"sda .*cannot be read"):
        connector.connect_volume(array.lun(1).properties)
    assert fake_host.leftovers() == []


@BOTH
def test_a_disk_that_can_be_read_a_moment_later_is_handed_out(
    fake_host: FakeHost, multipath: bool
) -> None:
    fake_host.multipathd.stop()
    array = prepared(fake_host, hbas=1, ports=1)
    volume = array.lun(1)
    fake_host.after(17, array.ports[0].restore)
    done: list[str] = []

    def on_read(name: str) -> None:
        if name.endswith("bus/scsi/devices/2:0:0:1/state") and not done:
            done.append(name)
            array.ports[0].silence()

    fake_host.faults.on_read = on_read
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    assert connector.connect_volume(volume.properties)["scsi_wwn"] == volume.wwid


@BOTH
def test_a_read_only_volume(
    fake_host: FakeHost, multipath: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _connector, volume, info = attached(fake_host, multipath=multipath, read_only=True)
    assert info["scsi_wwn"] == volume.wwid
    assert ("is still read-only. Continuing anyway." in caplog.text) == multipath


def test_a_volume_for_reading_is_not_waited_for_to_be_writable(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    volume = prepared(fake_host).lun(1, read_only=True)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    began = fake_host.now
    connector.connect_volume(volume.connection(access_mode="ro"))
    assert fake_host.now - began < 5
    assert "read-only" not in caplog.text


# -- the right volume ------------------------------------------------------------------------
@BOTH
def test_a_stale_disk_is_never_handed_out(fake_host: FakeHost, multipath: bool) -> None:
    connector, old, _info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    new = old.remap()
    info = connector.connect_volume(new.properties)
    assert info["scsi_wwn"] == new.wwid
    fake_host.write(info["path"], b"new")
    connector.disconnect_volume(new.properties, info)
    assert (old.data, new.data) == (b"", b"new")
    assert [one for one in fake_host.inventory() if "device" in one] == []


@BOTH
def test_paths_to_different_volumes_are_refused(fake_host: FakeHost, multipath: bool) -> None:
    array = prepared(fake_host, hbas=1, ports=2)
    one, other = array.lun(1), array.lun(2)
    array.show([9, 1], other.unit)  # the second port shows another volume under LUN 1
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    with pytest.raises(exception.WrongVolume) as caught:
        connector.connect_volume(one.properties)
    assert one.wwid in str(caught.value)
    assert other.wwid in str(caught.value)
    assert fake_host.leftovers() == []


@BOTH
def test_a_failed_attach_leaves_what_was_there(fake_host: FakeHost, multipath: bool) -> None:
    array = prepared(fake_host, hbas=1, ports=2)
    other = array.lun(2)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    connector.connect_volume(other.properties)
    fake_host.pass_time(1)
    fake_host.remember(anew=True)
    volume = array.lun(1)
    array.show([9, 1], other.unit)
    with pytest.raises(exception.WrongVolume):
        connector.connect_volume(volume.properties)
    assert fake_host.leftovers() == []
    assert len(disk_names(fake_host)) == 2


# -- paths that hang -------------------------------------------------------------------------
def test_a_scan_that_blocks_holds_up_nobody_for_long_and_joins_later(fake_host: FakeHost) -> None:
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    array.ports[1].silence()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    began = fake_host.now
    info = connector.connect_volume(volume.properties)
    assert fake_host.now - began < 15
    assert len(disk_names(fake_host)) == 1
    array.ports[1].restore()
    fake_host.pass_time(5)
    assert len(fake_host.multipathd.maps()[0].slaves) == 2
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@BOTH
def test_a_path_that_comes_after_the_detach_goes_again(
    fake_host: FakeHost, multipath: bool
) -> None:
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    array.ports[1].silence()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    connector.disconnect_volume(volume.properties, info)
    array.ports[1].restore()
    fake_host.pass_time(30)
    assert fake_host.leftovers() == []


@BOTH
def test_a_path_that_comes_after_a_failed_attach_goes_again(
    fake_host: FakeHost, multipath: bool
) -> None:
    array = prepared(fake_host, hbas=1, ports=1)
    volume = array.lun(1)
    array.ports[0].silence()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(volume.properties)
    assert scans(fake_host) == ["host2 0 0 1"]
    array.ports[0].restore()
    fake_host.pass_time(30)
    assert fake_host.leftovers() == []


# -- many at once ----------------------------------------------------------------------------
def test_one_connector_serves_twenty_threads(fake_host: FakeHost) -> None:
    array = prepared(fake_host)
    volumes = [array.lun(number) for number in range(1, 21)]
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    infos = side_by_side(
        fake_host,
        *[lambda volume=volume: connector.connect_volume(volume.properties) for volume in volumes],
    )
    assert [info["path"] for info in infos] == [map_link(volume) for volume in volumes]
    for volume, info in zip(volumes, infos, strict=True):
        fake_host.write(info["path"], volume.wwid.encode())
    answers = side_by_side(
        fake_host,
        *[
            lambda volume=volume, info=info: connector.disconnect_volume(volume.properties, info)
            for volume, info in zip(volumes, infos, strict=True)
        ],
    )
    assert answers == [None] * 20
    assert [volume.data for volume in volumes] == [volume.wwid.encode() for volume in volumes]
    assert fake_host.leftovers() == []


def test_the_same_volume_at_once(fake_host: FakeHost) -> None:
    volume = prepared(fake_host).lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    infos = side_by_side(fake_host, *[lambda: connector.connect_volume(volume.properties)] * 4)
    assert [info["path"] for info in infos] == [map_link(volume)] * 4
    assert len(scans(fake_host)) == 4


def test_a_detached_lun_does_not_come_back_by_another_ones_attach(fake_host: FakeHost) -> None:
    array = prepared(fake_host)
    first, second = array.lun(1), array.lun(2)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(first.properties)
    side_by_side(
        fake_host,
        lambda: connector.disconnect_volume(first.properties, info),
        lambda: connector.connect_volume(second.properties),
    )
    fake_host.pass_time(2)
    assert {change[1].rpartition(" ")[2] for change in changes(fake_host, "scan")} == {"1", "2"}
    assert {disk.wwid for disk in fake_host.disks()} == {second.wwid}
