# SPDX-License-Identifier: Apache-2.0
"""The model of Fibre Channel behaves as the kernel's documents and sources say."""

from __future__ import annotations

import errno

import pytest

from os_brick.initiator.linux.call import Call
from os_brick.testing import FakeHost
from os_brick.testing.fc_storage import FcVolume


@pytest.fixture
def volume(fake_host: FakeHost) -> FcVolume:
    fake_host.fc_hbas(1)
    return fake_host.fc_array(1).lun(1)


def call(host: FakeHost) -> Call:
    return Call("test", host.host.clock, 3600)


def scan(host: FakeHost, text: str = "0 0 1") -> None:
    channel, target, lun = text.split()
    host.host.changes.scan(call(host), 2, channel, target, int(lun))
    host.pass_time(1)


def states(host: FakeHost) -> tuple[str, str]:
    """Return the states of the first remote port and of the first disk's device."""
    sysfs = host.host.sysfs
    port = sysfs.text("class/fc_remote_ports", "rport-2:0-0", "port_state")
    return port, sysfs.text("bus/scsi/devices", "2:0:0:1", "state")


def test_a_remote_port_is_a_target_before_it_has_devices(
    fake_host: FakeHost, volume: FcVolume
) -> None:
    sysfs = fake_host.host.sysfs
    assert sysfs.number("class/fc_remote_ports", "rport-2:0-0", "scsi_target_id") == 0
    assert sysfs.names("class/fc_transport") == []
    scan(fake_host)
    name = sysfs.text("class/fc_transport", "target2:0:0", "port_name")
    assert name == f"0x{volume.array.wwpns[0]}"
    fake_host.scsi.drop(fake_host.fc.hbas[0].host.devices[0])
    assert sysfs.names("class/fc_transport") == []


def test_the_kernel_scans_a_port_when_it_appears(fake_host: FakeHost) -> None:
    fake_host.fc_hbas(1)
    array = fake_host.fc_array(1, seen=False)
    array.lun(4)
    fake_host.fc.zone(fake_host.fc.hbas[0], array.ports[0])
    fake_host.pass_time(1)
    assert [str(one.hctl) for one in fake_host.fc.hbas[0].host.devices] == ["2:0:0:4"]


@pytest.mark.parametrize("text", ["0 0 1", "- - 1", "0 - 1"])
def test_scans_that_reach_the_lun(fake_host: FakeHost, volume: FcVolume, text: str) -> None:
    scan(fake_host, text)
    assert [disk.wwid for disk in fake_host.disks()] == [volume.wwid]


@pytest.mark.parametrize("text", ["0 1 1", "1 0 1", "0 0 2"])
def test_scans_that_do_not(fake_host: FakeHost, volume: FcVolume, text: str) -> None:
    scan(fake_host, text)
    assert fake_host.disks() == []


def test_a_lost_port_blocks_then_fails_then_is_removed(
    fake_host: FakeHost, volume: FcVolume
) -> None:
    scan(fake_host)
    volume.array.ports[0].lose(fast_io_fail_s=5, dev_loss_s=60)
    assert states(fake_host) == ("Blocked", "blocked")
    fake_host.pass_time(6)
    assert states(fake_host) == ("Blocked", "transport-offline")
    fake_host.pass_time(60)
    assert states(fake_host) == ("", "")
    assert fake_host.disks() == []
    volume.array.ports[0].restore()
    fake_host.pass_time(1)
    sysfs = fake_host.host.sysfs
    assert sysfs.number("class/fc_remote_ports", "rport-2:0-1", "scsi_target_id") == 1
    assert [str(one.hctl) for one in fake_host.fc.hbas[0].host.devices] == ["2:0:1:1"]


def test_a_port_that_is_back_in_time(fake_host: FakeHost, volume: FcVolume) -> None:
    scan(fake_host)
    volume.array.ports[0].lose()
    fake_host.pass_time(10)
    volume.array.ports[0].restore()
    assert states(fake_host) == ("Online", "running")


def test_a_silent_port_keeps_the_scanner_and_gives_its_lun_later(
    fake_host: FakeHost, volume: FcVolume
) -> None:
    volume.array.ports[0].silence()
    with pytest.raises(TimeoutError):
        fake_host.host.changes.scan(call(fake_host), 2, "0", "0", 1)
    volume.array.ports[0].restore()
    fake_host.pass_time(1)
    assert len(fake_host.disks()) == 1


def test_a_pulled_cable(fake_host: FakeHost, volume: FcVolume) -> None:
    scan(fake_host)
    fake_host.fc.set_state(fake_host.fc.hbas[0], "Linkdown")
    assert fake_host.host.sysfs.text("class/fc_host/host2/port_state") == "Linkdown"
    assert states(fake_host) == ("Blocked", "blocked")
    fake_host.fc.set_state(fake_host.fc.hbas[0], "Online")
    assert states(fake_host) == ("Online", "running")


# -- zfcp ------------------------------------------------------------------------------------
LUN = "0x0001000000000000"


def test_a_lun_needs_its_unit(fake_host: FakeHost) -> None:
    fake_host.zfcp.add_adapter()
    array = fake_host.fc_array(1)
    volume = array.lun(1)
    scan(fake_host)
    assert fake_host.disks() == []
    changes, wwpn = fake_host.host.changes, array.wwpns[0]
    changes.configure_unit(call(fake_host), "0.0.2300", wwpn, LUN)
    fake_host.pass_time(1)
    assert [disk.wwid for disk in fake_host.disks()] == [volume.wwid]
    sysfs = fake_host.host.sysfs
    assert sysfs.text("bus/scsi/devices/2:0:0:1/hba_id") == "0.0.2300"
    assert sysfs.text("bus/scsi/devices/2:0:0:1/wwpn") == f"0x{wwpn}"
    assert sysfs.text("bus/scsi/devices/2:0:0:1/fcp_lun") == LUN
    with pytest.raises(OSError, match="exists") as caught:
        changes.configure_unit(call(fake_host), "0.0.2300", wwpn, LUN)
    assert caught.value.errno == errno.EEXIST
    changes.remove_unit(call(fake_host), "0.0.2300", wwpn, LUN)
    assert fake_host.disks() == []
    with pytest.raises(OSError, match="Invalid"):
        changes.remove_unit(call(fake_host), "0.0.2300", wwpn, LUN)


def test_npiv_needs_no_unit(fake_host: FakeHost) -> None:
    fake_host.zfcp.add_adapter(npiv=True)
    array = fake_host.fc_array(1)
    array.lun(1)
    scan(fake_host)
    assert len(fake_host.disks()) == 1
    with pytest.raises(OSError, match="Invalid"):
        fake_host.host.changes.configure_unit(call(fake_host), "0.0.2300", array.wwpns[0], LUN)


def test_ports_appear_when_they_are_looked_for(fake_host: FakeHost) -> None:
    hba = fake_host.zfcp.add_adapter(port_scan=False)
    array = fake_host.fc_array(1, seen=False)
    fake_host.fc.allow(hba, array.ports[0])
    sysfs = fake_host.host.sysfs
    port = ("bus/ccw/drivers/zfcp/0.0.2300", f"0x{array.wwpns[0]}")
    assert not sysfs.exists(*port)
    fake_host.host.changes.rescan_ports(call(fake_host), "0.0.2300")
    assert sysfs.exists(*port)
    assert sysfs.names("class/fc_remote_ports") == ["rport-2:0-0"]
    with pytest.raises(FileNotFoundError):
        fake_host.host.changes.rescan_ports(call(fake_host), "0.0.9999")
