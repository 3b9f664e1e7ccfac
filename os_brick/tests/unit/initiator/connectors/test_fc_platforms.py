# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel on every architecture, end to end (FC-6, FC-7, FC-21 to FC-24)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from os_brick import exception
from os_brick.initiator.connectors.fibre_channel import FibreChannelConnector
from os_brick.initiator.connectors.fibre_channel_ppc64 import FibreChannelConnectorPPC64
from os_brick.initiator.connectors.fibre_channel_s390x import FibreChannelConnectorS390X
from os_brick.testing import FakeHost
from os_brick.testing.fc_storage import FcArray, FcVolume
from os_brick.tests.unit.initiator.connectors.fc_helpers import map_link, scans
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import changes, commands

BOTH = pytest.mark.parametrize("multipath", [False, True])
FOREIGN = pytest.mark.parametrize("foreign", [False, True])
#: With and without units: how an adapter of IBM Z shows LUNs.
ZFCP = pytest.mark.parametrize(
    "adapter",
    [
        {},
        {"npiv": True},
        {"npiv": True, "lun_scan": False},
        {"port_scan": False},
        {"npiv": True, "port_scan": False},
    ],
    ids=["units", "npiv", "npiv-units", "units-ports", "npiv-ports"],
)


def needs_units(adapter: dict[str, bool]) -> bool:
    return not (adapter.get("npiv") and adapter.get("lun_scan", True))


def on_ibm_z(
    host: FakeHost, *, adapters: int = 1, ports: int = 1, seen: bool = True, **adapter: bool
) -> FcArray:
    """Return an array that all zfcp adapters of the host can see, whether they know it or not."""
    made = [host.zfcp.add_adapter(**adapter) for _ in range(adapters)]
    if seen and adapter.get("port_scan", True):
        return host.fc_array(ports)
    array = host.fc_array(ports, seen=False)
    for hba in made:
        for port in array.ports:
            host.fc.allow(hba, port)
    return array


def connector_of(host: FakeHost, arch: str, **keywords: Any) -> Any:
    return host.connector("FIBRE_CHANNEL", arch=arch, **keywords)


def unit_changes(host: FakeHost) -> list[str]:
    kinds = ("port_rescan", "unit_add", "unit_remove")
    return sorted(f"{one.kind} {one.what} {one.text}" for one in host.changes if one.kind in kinds)


# -- which connector -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arch", "kind"),
    [
        ("x86_64", FibreChannelConnector),
        ("aarch64", FibreChannelConnector),
        ("s390", FibreChannelConnectorS390X),
        ("s390x", FibreChannelConnectorS390X),
        ("ppc64", FibreChannelConnectorPPC64),
        ("ppc64le", FibreChannelConnectorPPC64),
    ],
)
def test_each_architecture_has_its_connector(
    fake_host: FakeHost, arch: str, kind: type[FibreChannelConnector]
) -> None:
    connector = connector_of(fake_host, arch, use_multipath=True, device_scan_attempts=5, odd=1)
    assert type(connector) is kind
    assert (connector.use_multipath, connector.device_scan_attempts) == (True, 5)


# -- x86 and others, POWER -------------------------------------------------------------------
@BOTH
@FOREIGN
@pytest.mark.parametrize(
    ("arch", "kind", "link"),
    [
        ("x86_64", "pci", "pci-0000:05:00.0-fc-0x{wwpn}-lun-{lun}"),
        ("x86_64", "fcoe", "pci-0000:21:00.0-fc-0x{wwpn}-lun-{lun}"),
        (
            "aarch64",
            "arm",
            "platform-80040000000.peu0-c0-pci-0000:01:00.0-fc-0x{wwpn}-lun-{lun}",
        ),
        ("ppc64le", "vio", "fc-0x{wwpn}-lun-{lun}"),
    ],
    ids=["pci", "fcoe", "arm", "power"],
)
@pytest.mark.parametrize(("lun", "spelt"), [(1, "1"), (300, "0x012c000000000000")])
def test_attach_use_and_detach(
    fake_host: FakeHost,
    multipath: bool,
    foreign: bool,
    arch: str,
    kind: str,
    link: str,
    lun: int,
    spelt: str,
) -> None:
    fake_host.fc_hbas(2, kind)
    array = fake_host.fc_array(2)
    volume = array.lun(lun)
    connector = connector_of(fake_host, arch, use_multipath=multipath, foreign=foreign)
    info = connector.connect_volume(volume.properties)
    single = f"/dev/disk/by-path/{link.format(wwpn=array.wwpns[0], lun=spelt)}"
    assert info["path"] == (map_link(volume) if multipath else single)
    fake_host.pass_time(1)
    assert single in connector.get_volume_paths(volume.properties)
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_two_adapters_of_power_have_one_link_for_a_target(fake_host: FakeHost) -> None:
    fake_host.fc_hbas(2, "vio")
    array = fake_host.fc_array(1)
    volume = array.lun(1)
    connector = connector_of(fake_host, "ppc64")
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    assert connector.get_volume_paths(volume.properties) == [
        f"/dev/disk/by-path/fc-0x{array.wwpns[0]}-lun-1"
    ]


# -- IBM Z -----------------------------------------------------------------------------------
@BOTH
@FOREIGN
@ZFCP
def test_ibm_z_attach_use_and_detach(
    fake_host: FakeHost, multipath: bool, foreign: bool, adapter: dict[str, bool]
) -> None:
    array = on_ibm_z(fake_host, adapters=2, ports=2, **adapter)
    volume = array.lun(1)
    connector = connector_of(fake_host, "s390x", use_multipath=multipath, foreign=foreign)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    assert len(fake_host.disks()) == 4
    if multipath:
        assert info["path"] == map_link(volume)
    else:
        assert info["path"] == f"/dev/disk/by-path/ccw-0.0.2300-fc-0x{array.wwpns[0]}-lun-1"
    assert bool(fake_host.zfcp.units()) == needs_units(adapter)
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.zfcp.units() == []
    assert fake_host.leftovers() == []


def test_a_unit_for_each_path_and_no_scan(fake_host: FakeHost) -> None:
    array = on_ibm_z(fake_host, ports=2)
    volume = array.lun(255)
    connector_of(fake_host, "s390x").connect_volume(volume.properties)
    assert unit_changes(fake_host) == [
        f"unit_add 0.0.2300/0x{wwpn} 0x00ff000000000000" for wwpn in array.wwpns
    ]
    assert scans(fake_host) == []


def test_no_unit_where_luns_are_found_without(fake_host: FakeHost) -> None:
    volume = on_ibm_z(fake_host, npiv=True).lun(1)
    connector_of(fake_host, "s390x").connect_volume(volume.properties)
    assert unit_changes(fake_host) == []
    assert scans(fake_host) == ["host2 0 0 1"]


def test_a_lun_of_two_levels(fake_host: FakeHost) -> None:
    array = on_ibm_z(fake_host)
    volume = array.lun(0x40324010)  # as the kernel counts what DS8000 calls 0x40104032
    properties = volume.connection(target_lun=0x40104032)
    connector = connector_of(fake_host, "s390x")
    info = connector.connect_volume(properties)
    wwpn = array.wwpns[0]
    assert unit_changes(fake_host) == [f"unit_add 0.0.2300/0x{wwpn} 0x4010403200000000"]
    assert info["path"].endswith(f"ccw-0.0.2300-fc-0x{wwpn}-lun-0x4010403200000000")
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_ports_are_looked_for_where_the_driver_does_not_do_so(fake_host: FakeHost) -> None:
    array = on_ibm_z(fake_host, port_scan=False)
    volume = array.lun(1)
    connector = connector_of(fake_host, "s390x")
    info = connector.connect_volume(volume.properties)
    assert unit_changes(fake_host) == [
        "port_rescan 0.0.2300 1",
        f"unit_add 0.0.2300/0x{array.wwpns[0]} 0x0001000000000000",
    ]
    connector.disconnect_volume(volume.properties, info)
    fake_host.forget()
    connector.connect_volume(volume.properties)
    assert "port_rescan 0.0.2300 1" not in unit_changes(fake_host), "the port is known by now"


def test_an_adapter_that_is_offline_is_left_alone(fake_host: FakeHost) -> None:
    volume = on_ibm_z(fake_host, adapters=2).lun(1)
    fake_host.fc.set_state(fake_host.fc.hbas[0], "Linkdown")
    connector = connector_of(fake_host, "s390x", use_multipath=True)
    connector.connect_volume(volume.properties)
    assert [line.split()[1].partition("/")[0] for line in unit_changes(fake_host)] == ["0.0.2301"]


@pytest.mark.parametrize("kind", ["unit_add", "port_rescan"])
def test_a_driver_that_refuses_is_a_warning(
    fake_host: FakeHost, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    volume = on_ibm_z(fake_host, port_scan=False).lun(1)
    fake_host.faults.failing_writes[kind] = errno.EIO
    connector = connector_of(fake_host, "s390x", device_scan_attempts=2)
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(volume.properties)
    assert "Input/output error" in caplog.text
    assert fake_host.leftovers() == []


def test_a_unit_that_lost_its_disk_is_scanned(fake_host: FakeHost) -> None:
    volume = on_ibm_z(fake_host).lun(1)
    connector = connector_of(fake_host, "s390x")
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    for disk in fake_host.disks():
        assert disk.device is not None
        fake_host.scsi.drop(disk.device)
    fake_host.pass_time(1)
    fake_host.forget()
    info = connector.connect_volume(volume.properties)
    assert unit_changes(fake_host) == []
    assert scans(fake_host) == ["host2 0 0 1"]
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@BOTH
def test_a_failed_attach_leaves_no_unit(fake_host: FakeHost, multipath: bool) -> None:
    array = on_ibm_z(fake_host, ports=2)
    volume = array.lun(1, mapped=False)
    connector = connector_of(fake_host, "s390x", use_multipath=multipath)
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(volume.properties)
    assert len(changes(fake_host, "unit_add")) == 2
    assert fake_host.zfcp.units() == []
    assert fake_host.leftovers() == []


def test_units_of_others_stay_when_an_attach_fails(fake_host: FakeHost) -> None:
    array = on_ibm_z(fake_host)
    first = array.lun(1)
    connector = connector_of(fake_host, "s390x")
    connector.connect_volume(first.properties)
    fake_host.pass_time(1)
    fake_host.remember(anew=True)
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(array.lun(2, mapped=False).properties)
    assert fake_host.leftovers() == []
    assert len(fake_host.zfcp.units()) == 1


def test_a_unit_without_a_disk_goes_with_the_detach(fake_host: FakeHost) -> None:
    volume = on_ibm_z(fake_host).lun(1)
    connector = connector_of(fake_host, "s390x")
    info = connector.connect_volume(volume.properties)
    for disk in fake_host.disks():
        assert disk.device is not None
        fake_host.scsi.drop(disk.device)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.zfcp.units() == []


def test_a_unit_that_cannot_be_removed_does_not_keep_the_disk(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    volume = on_ibm_z(fake_host).lun(1)
    connector = connector_of(fake_host, "s390x")
    info = connector.connect_volume(volume.properties)
    fake_host.faults.failing_writes["unit_remove"] = errno.EBUSY
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.disks() == []
    assert "zfcp unit 0x0001000000000000" in caplog.text


def attached_on_ibm_z(host: FakeHost, **adapter: bool) -> tuple[Any, FcVolume, dict[str, Any]]:
    volume = on_ibm_z(host, **adapter).lun(1)
    connector = connector_of(host, "s390x")
    return connector, volume, connector.connect_volume(volume.properties)


@ZFCP
def test_nothing_is_removed_unflushed(fake_host: FakeHost, adapter: dict[str, bool]) -> None:
    """The existing library removes units, and with them their disks, without writing out."""
    connector, volume, info = attached_on_ibm_z(fake_host, **adapter)
    fake_host.write(info["path"], b"data")
    volume.array.ports[0].lose(dev_loss_s=36000)
    with pytest.raises(Exception, match="sync"):
        connector.disconnect_volume(volume.properties, info)
    assert changes(fake_host, "unit_remove") == changes(fake_host, "delete") == []
    volume.array.ports[0].restore()
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@ZFCP
def test_looking_for_paths_changes_nothing(fake_host: FakeHost, adapter: dict[str, bool]) -> None:
    volume = on_ibm_z(fake_host, **adapter).lun(1)
    connector = connector_of(fake_host, "s390x")
    assert connector.get_volume_paths(volume.properties) == []
    with pytest.raises(exception.VolumePathsNotFound):
        connector.extend_volume(volume.properties)
    connector.disconnect_volume(volume.properties, None)
    assert fake_host.journal == []
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.forget()
    assert info["path"] in connector.get_volume_paths(volume.properties)
    assert fake_host.journal == []


@ZFCP
def test_ibm_z_extend(fake_host: FakeHost, adapter: dict[str, bool]) -> None:
    connector, volume, _info = attached_on_ibm_z(fake_host, **adapter)
    size = 3 * volume.size
    volume.grow(size)
    assert connector.extend_volume(volume.properties) == size


def test_ibm_z_stale_disk(fake_host: FakeHost) -> None:
    connector, old, _info = attached_on_ibm_z(fake_host)
    fake_host.pass_time(1)
    new = old.remap()
    info = connector.connect_volume(new.properties)
    assert info["scsi_wwn"] == new.wwid
    connector.disconnect_volume(new.properties, info)
    assert fake_host.disks() == []
    assert fake_host.zfcp.units() == []


def test_old_lun_forms_that_are_links_of_red_hat(fake_host: FakeHost) -> None:
    array = on_ibm_z(fake_host)
    volume = array.lun(1)
    connector = connector_of(fake_host, "s390x")
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    red_hat = f"/dev/disk/by-path/ccw-0.0.2300-zfcp-0x{array.wwpns[0]}:0x0001000000000000"
    fake_host.stale_link(red_hat, fake_host.disks()[0].name)
    assert connector.get_volume_paths(volume.properties)[0] == red_hat
    assert connector.connect_volume(volume.properties)["path"] == red_hat


def test_programs_in_place_of_verbs(fake_host: FakeHost) -> None:
    array = on_ibm_z(fake_host, port_scan=False)
    volume = array.lun(1)
    connector = connector_of(fake_host, "s390x", foreign=True)
    info = connector.connect_volume(volume.properties)
    connector.disconnect_volume(volume.properties, info)
    files = [words[-1].partition("/zfcp/")[2] for words in commands(fake_host, "tee", "-a")]
    port = f"0.0.2300/0x{array.wwpns[0]}"
    assert [one for one in files if one] == [
        "0.0.2300/port_rescan",
        f"{port}/unit_add",
        f"{port}/unit_remove",
    ]
    assert fake_host.leftovers() == []


def test_the_zfcp_unit_of_the_next_volume_stays_while_its_port_is_away(
    fake_host: FakeHost,
) -> None:
    """The array has given the LUN to another volume, which is attached; a detach of the first is
    repeated while one of the ports is away."""
    last = on_ibm_z(fake_host, ports=2).lun(1)
    connector = connector_of(fake_host, "s390x", use_multipath=True)
    info = connector.connect_volume(last.properties)
    fake_host.pass_time(1)
    connector.disconnect_volume(last.properties, info)
    volume = last.remap()
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    units = fake_host.zfcp.units()
    volume.array.ports[0].lose(dev_loss_s=10)
    fake_host.pass_time(100)
    assert 0 < len(fake_host.disks()) < len(units)
    assert fake_host.zfcp.units() == units
    connector.disconnect_volume(last.properties, info)
    assert fake_host.zfcp.units() == units
