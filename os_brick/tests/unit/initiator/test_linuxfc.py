# SPDX-License-Identifier: Apache-2.0
"""LinuxFibreChannel and its kin, the helpers that connectors outside this library know."""

from __future__ import annotations

import errno

import pytest

from os_brick import exception
from os_brick.initiator import linuxfc
from os_brick.initiator.linuxscsi import LinuxSCSI
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.fc_helpers import prepared, scans
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import changes

LUN = "0x0001000000000000"


def helper(host: FakeHost) -> linuxfc.LinuxFibreChannel:
    return linuxfc.LinuxFibreChannel(None, host=host.host)


def test_they_are_helpers_for_scsi_too(fake_host: FakeHost) -> None:
    assert isinstance(helper(fake_host), LinuxSCSI)
    assert issubclass(linuxfc.LinuxFibreChannelS390X, linuxfc.LinuxFibreChannel)
    assert issubclass(linuxfc.LinuxFibreChannelPPC64, linuxfc.LinuxFibreChannel)


# -- ports -----------------------------------------------------------------------------------
def test_a_host_without_fibre_channel(fake_host: FakeHost) -> None:
    fc = helper(fake_host)
    assert not fc.has_fc_support()
    assert fc.get_fc_hbas_info() == []
    assert fc.get_fc_wwpns() == []
    assert fc.get_fc_wwnns() == []


def test_what_is_told_of_each_port(fake_host: FakeHost) -> None:
    first, second = fake_host.fc_hbas(2)
    fake_host.fc.set_state(second, "Linkdown")
    fc = helper(fake_host)
    assert fc.has_fc_support()
    assert fc.get_fc_hbas_info() == [
        {
            "port_name": hba.wwpn,
            "node_name": hba.wwnn,
            "host_device": hba.name,
            "device_path": f"/sys/{hba.host.sysfs}/fc_host/{hba.name}",
        }
        for hba in (first, second)
    ]
    assert fc.get_fc_wwpns() == [first.wwpn]
    assert fc.get_fc_wwnns() == [first.wwnn]


def test_on_ibm_z_only_connected_ports_are_told_of(fake_host: FakeHost) -> None:
    first, second = (fake_host.zfcp.add_adapter() for _ in range(2))
    fake_host.fc.set_state(second, "Linkdown")
    fc = linuxfc.LinuxFibreChannelS390X(None, host=fake_host.host)
    assert [hba["port_name"] for hba in fc.get_fc_hbas_info()] == [first.wwpn]


def test_the_machines_ports_are_told_without_an_object() -> None:
    for hba in linuxfc.LinuxFibreChannel.get_fc_hbas():
        assert set(hba) == {
            "ClassDevice",
            "ClassDevicepath",
            *linuxfc.LinuxFibreChannel.HBA_ATTRIBUTES,
        }


# -- scans -----------------------------------------------------------------------------------
def test_two_hbas_two_of_four_targets_each_four_scans(fake_host: FakeHost) -> None:
    volume = prepared(fake_host, hbas=2, ports=4).lun(7)
    fc = helper(fake_host)
    fc.rescan_hosts(fc.get_fc_hbas_info(), volume.connection(ports=[0, 2]))
    assert scans(fake_host) == ["host2 0 0 7", "host2 0 2 7", "host3 0 0 7", "host3 0 2 7"]


def test_only_the_hbas_that_are_named_are_scanned(fake_host: FakeHost) -> None:
    volume = prepared(fake_host).lun(7)
    fc = helper(fake_host)
    fc.rescan_hosts(fc.get_fc_hbas_info()[1:], volume.properties)
    assert scans(fake_host) == ["host3 0 0 7", "host3 0 1 7"]


def test_a_scan_that_fails_does_not_keep_the_others(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    volume = prepared(fake_host).lun(7)
    fake_host.faults.failing_writes["scan"] = errno.EIO
    fc = helper(fake_host)
    fc.rescan_hosts(fc.get_fc_hbas_info(), volume.properties)
    assert len(scans(fake_host)) == 4
    assert "Input/output error" in caplog.text


def test_properties_that_cannot_be_used(fake_host: FakeHost) -> None:
    with pytest.raises(exception.VolumePathsNotFound):
        helper(fake_host).rescan_hosts([], {"target_lun": 1})


def test_just_a_lun_as_callers_of_old_give_it(fake_host: FakeHost) -> None:
    prepared(fake_host)
    fc = helper(fake_host)
    fc.rescan_hosts(fc.get_fc_hbas_info(), 7)
    assert scans(fake_host) == ["host2 - - 7", "host3 - - 7"]


def test_just_a_lun_on_power_needs_the_targets_of_each_port(fake_host: FakeHost) -> None:
    fake_host.fc_hbas(2, "vio")
    array = fake_host.fc_array(2)
    fc = linuxfc.LinuxFibreChannelPPC64(None, host=fake_host.host)
    first, second = fc.get_fc_hbas_info()
    fc.rescan_hosts([{**first, "target_wwn": [array.wwpns[1]]}, second], 7)
    assert scans(fake_host) == ["host2 0 1 7"]
    fake_host.forget()
    fc.rescan_hosts([second], array.lun(3).properties)
    assert scans(fake_host) == ["host3 0 0 3", "host3 0 1 3"]


# -- units of IBM Z --------------------------------------------------------------------------
@pytest.mark.parametrize("prefix", ["", "0x"])
def test_configure_and_deconfigure(fake_host: FakeHost, prefix: str) -> None:
    fake_host.zfcp.add_adapter()
    array = fake_host.fc_array(1)
    array.lun(1)
    fc = linuxfc.LinuxFibreChannelS390X(None, host=fake_host.host)
    wwpn = array.wwpns[0]
    fc.configure_scsi_device("0.0.2300", prefix + wwpn.upper(), LUN)
    fake_host.pass_time(1)
    assert len(fake_host.disks()) == 1
    assert changes(fake_host, "unit_add") == [(f"0.0.2300/0x{wwpn}", LUN)]
    fc.deconfigure_scsi_device("0.0.2300", prefix + wwpn, LUN)
    assert fake_host.disks() == []
    assert fake_host.zfcp.units() == []


def test_a_port_that_is_not_known_is_looked_for(fake_host: FakeHost) -> None:
    hba = fake_host.zfcp.add_adapter(port_scan=False)
    array = fake_host.fc_array(1, seen=False)
    fake_host.fc.allow(hba, array.ports[0])
    fc = linuxfc.LinuxFibreChannelS390X(None, host=fake_host.host)
    fc.configure_scsi_device("0.0.2300", array.wwpns[0], LUN)
    assert [change.kind for change in fake_host.changes] == ["port_rescan", "unit_add"]


def test_what_the_driver_refuses_is_a_warning(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.zfcp.add_adapter(npiv=True)
    array = fake_host.fc_array(1)
    fc = linuxfc.LinuxFibreChannelS390X(None, host=fake_host.host)
    fc.configure_scsi_device("0.0.2300", array.wwpns[0], LUN)
    fc.deconfigure_scsi_device("0.0.2300", array.wwpns[0], LUN)
    assert caplog.text.count("Invalid argument") == 2
