# SPDX-License-Identifier: Apache-2.0
"""Ports of this host and remote ports in sysfs (FC-3 to FC-8, FC-14)."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from os_brick.initiator.linux import fc, fc_links, fc_paths
from os_brick.initiator.linux.fc import Hba
from os_brick.initiator.linux.fc_paths import Scan
from os_brick.initiator.linux.fc_volume import FcTarget, FcVolume
from os_brick.initiator.linux.sysfs import Tree
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.linux.trees import Folder

A, B, C, D = (f"50060e801019{number:04x}" for number in range(4))
PCI = "devices/pci0000:00/0000:00:03.0/0000:05:00.3/host{n}"


class Machine(Folder):
    """A ``/sys`` as the kernel's Fibre Channel transport fills it."""

    def hba(self, number: int, place: str = PCI, state: str = "Online", **files: str) -> str:
        wwpn = f"100010604b01{number:04x}"
        directory = f"{place.format(n=number)}/fc_host/host{number}"
        given = {"port_name": f"0x{wwpn}", "node_name": f"0x2{wwpn[1:]}", "port_state": state}
        for name, content in (given | files).items():
            self.write(f"{directory}/{name}", content)
        self.link(f"class/fc_host/host{number}", f"../../{directory}")
        return wwpn

    def rport(self, host: int, number: int, wwpn: str, target: int, **files: str) -> None:
        name = f"rport-{host}:0-{number}"
        given = {"port_name": f"0x{wwpn}", "scsi_target_id": str(target), "port_state": "Online"}
        directory = f"{PCI.format(n=host)}/{name}/fc_remote_ports/{name}"
        for file, content in (given | files).items():
            self.write(f"{directory}/{file}", content)
        self.link(f"class/fc_remote_ports/{name}", f"../../{directory}")

    def target(self, host: int, number: int, wwpn: str, rport: int) -> None:
        name = f"target{host}:0:{number}"
        directory = f"{PCI.format(n=host)}/rport-{host}:0-{rport}/{name}/fc_transport/{name}"
        self.write(f"{directory}/port_name", f"0x{wwpn}")
        self.link(f"class/fc_transport/{name}", f"../../{directory}")

    @property
    def tree(self) -> Tree:
        return Tree(str(self.root))


@pytest.fixture
def sys(tmp_path: pathlib.Path) -> Machine:
    made = Machine(tmp_path / "host" / "sys")
    made.directory("class")
    return made


def volume(*wwpns: str, lun: int = 1, **more: Any) -> FcVolume:
    return FcVolume.parse({"target_wwn": list(wwpns), "target_lun": lun, **more})


def plan(sys: Machine, wanted: FcVolume) -> list[str]:
    hbas = fc.read_hbas(sys.tree)
    ways = fc_paths.read_ways(sys.tree, hbas, wanted)
    return [str(scan) for scan in fc_paths.plan_scans(ways, hbas, wanted)]


# -- ports of this host ----------------------------------------------------------------------
def test_a_host_without_the_transport_has_no_ports(sys: Machine) -> None:
    assert fc.read_hbas(sys.tree) == []
    assert not fc.has_support(sys.tree)


def test_what_is_read_of_a_port(sys: Machine) -> None:
    sys.hba(6)
    (hba,) = fc.read_hbas(sys.tree)
    assert fc.has_support(sys.tree)
    assert (hba.name, hba.port_name, hba.node_name, hba.state) == (
        "host6",
        "100010604b010006",
        "200010604b010006",
        "Online",
    )
    assert hba.path == "/sys/devices/pci0000:00/0000:00:03.0/0000:05:00.3/host6/fc_host/host6"


def test_only_connected_ports_are_told_to_storage(sys: Machine) -> None:
    first, second = sys.hba(2), sys.hba(10)
    for number, state in enumerate(("Linkdown", "Offline", "Blocked", ""), start=3):
        sys.hba(number, state=state)
    found = fc.names_of(fc.read_hbas(sys.tree))
    assert found == {
        "wwpns": [first, second],
        "wwnns": [f"2{first[1:]}", f"2{second[1:]}"],
    }


def test_no_key_where_no_port_is_connected(sys: Machine) -> None:
    sys.hba(2, state="Linkdown")
    assert fc.names_of(fc.read_hbas(sys.tree)) == {}


def test_a_port_that_cannot_be_read_is_left_out_with_a_warning(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.fc_hbas(2)
    fake_host.faults.unreadable("sys/class/fc_host/host2/port_name")
    sysfs = fake_host.host.sysfs
    assert [hba.name for hba in fc.read_hbas(sysfs, strict=False)] == ["host3"]
    assert "host2" in caplog.text
    with pytest.raises(PermissionError):
        fc.read_hbas(sysfs)


@pytest.mark.parametrize(
    ("place", "address", "platform"),
    [
        (PCI, "0000:05:00.3", ""),
        (
            "devices/pci0000:20/0000:20:03.0/0000:21:00.2/net/ens2f2/ctlr_2/host{n}",
            "0000:21:00.2",
            "",
        ),
        (
            "devices/platform/80040000000.peu0-c0/pci0000:00/0000:00:00.0/0000:01:00.0/host{n}",
            "0000:01:00.0",
            "platform-80040000000.peu0-c0",
        ),
        ("devices/css0/0.0.0007/0.0.2300/host{n}", "0.0.2300", ""),
        ("devices/vio/30000003/host{n}", "30000003", ""),
        ("devices/virtual/fcst/host{n}", "fcst", ""),
    ],
    ids=["pci", "fcoe", "arm", "ccw", "vio", "virtual"],
)
def test_the_address_of_a_port(sys: Machine, place: str, address: str, platform: str) -> None:
    sys.hba(3, place)
    (hba,) = fc.read_hbas(sys.tree)
    assert (hba.bus_address, hba.platform) == (address, platform)


# -- names of links --------------------------------------------------------------------------
def hba(path: str) -> Hba:
    return Hba(2, "1" * 16, "2" * 16, "Online", f"/sys/devices/{path}/host2/fc_host/host2")


@pytest.mark.parametrize(
    ("lun", "spelt"),
    [
        (0, "0"),
        (255, "255"),
        (256, "0x0100000000000000"),
        (16640, "0x4100000000000000"),
        (65536, "0x0000000100000000"),
    ],
)
def test_links_of_pci_and_power(lun: int, spelt: str) -> None:
    target = FcTarget(A, lun)
    pci = hba("pci0000:00/0000:05:00.3")
    assert fc_links.pci_names(pci, target) == [f"pci-0000:05:00.3-fc-0x{A}-lun-{spelt}"]
    assert fc_links.vio_names(hba("vio/30000003"), target) == [f"fc-0x{A}-lun-{spelt}"]


def test_a_link_of_arm_has_its_platform() -> None:
    arm = hba("platform/80040000000.peu0-c0/pci0000:00/0000:01:00.0")
    assert fc_links.pci_names(arm, FcTarget(A, 1)) == [
        f"platform-80040000000.peu0-c0-pci-0000:01:00.0-fc-0x{A}-lun-1"
    ]


@pytest.mark.parametrize(
    ("lun", "names"),
    [
        (
            1,
            [
                f"ccw-0.0.2300-zfcp-0x{A}:0x0001000000000000",
                f"ccw-0.0.2300-fc-0x{A}-lun-1",
                f"ccw-0.0.2300-fc-0x{A}-lun-0x0001000000000000",
            ],
        ),
        (
            0x40324010,
            [
                f"ccw-0.0.2300-zfcp-0x{A}:0x4010403200000000",
                f"ccw-0.0.2300-fc-0x{A}-lun-0x4010403200000000",
            ],
        ),
    ],
)
def test_links_of_ibm_z(lun: int, names: list[str]) -> None:
    assert fc_links.ccw_names(hba("css0/0.0.0007/0.0.2300"), FcTarget(A, lun)) == names


def test_each_name_of_a_link_is_looked_for_once() -> None:
    both = [hba("vio/30000003"), hba("vio/30000004")]
    targets = [FcTarget(A, 1), FcTarget(B, 1)]
    flat = "0x4001000000000000"  # the same LUN, as an array may code it
    assert fc_links.names(fc_links.vio_names, both, targets) == [
        f"fc-0x{A}-lun-1",
        f"fc-0x{A}-lun-{flat}",
        f"fc-0x{B}-lun-1",
        f"fc-0x{B}-lun-{flat}",
    ]


# -- what is scanned -------------------------------------------------------------------------
def test_two_ports_four_remote_ports_each_two_of_them_the_volumes_four_scans(sys: Machine) -> None:
    for host in (2, 3):
        sys.hba(host)
        for number, wwpn in enumerate((A, B, C, D)):
            sys.rport(host, number, wwpn, target=number)
    assert plan(sys, volume(B, D)) == [
        "host2 0 1 1",
        "host2 0 3 1",
        "host3 0 1 1",
        "host3 0 3 1",
    ]


def test_letter_case_makes_no_difference(sys: Machine) -> None:
    sys.hba(2)
    sys.rport(2, 0, A.upper(), target=4)
    assert plan(sys, volume(A.upper())) == ["host2 0 4 1"]


def test_each_port_has_its_own_lun(sys: Machine) -> None:
    sys.hba(2)
    sys.rport(2, 0, A, target=0)
    sys.rport(2, 1, B, target=1)
    wanted = FcVolume.parse({"target_wwns": [A, B], "target_luns": [5, 6]})
    assert plan(sys, wanted) == ["host2 0 0 5", "host2 0 1 6"]


def test_only_the_ports_of_the_map_and_their_targets(sys: Machine) -> None:
    first, second, _third = (sys.hba(number) for number in (2, 3, 4))
    for host in (2, 3, 4):
        sys.rport(host, 0, A, target=0)
        sys.rport(host, 1, B, target=1)
    wanted = volume(A, B, initiator_target_map={first: [A], second.upper(): [B.upper()]})
    assert plan(sys, wanted) == ["host2 0 0 1", "host3 0 1 1"]


def test_hits_on_some_ports_of_this_host_leave_the_others_alone(sys: Machine) -> None:
    sys.hba(2)
    sys.hba(3)
    sys.rport(2, 0, A, target=0)
    sys.rport(3, 0, C, target=0)
    assert plan(sys, volume(A)) == ["host2 0 0 1"]


def test_a_target_with_devices_is_found_without_its_remote_port(sys: Machine) -> None:
    sys.hba(2)
    sys.target(2, 7, A, rport=3)
    assert plan(sys, volume(A)) == ["host2 0 7 1"]


def test_a_remote_port_is_found_without_devices(sys: Machine) -> None:
    sys.hba(2)
    sys.rport(2, 3, A, target=5)
    assert plan(sys, volume(A)) == ["host2 0 5 1"]


def test_a_target_known_in_both_ways_is_scanned_once(sys: Machine) -> None:
    sys.hba(2)
    sys.rport(2, 3, A, target=5)
    sys.target(2, 5, A, rport=3)
    assert plan(sys, volume(A)) == ["host2 0 5 1"]


@pytest.mark.parametrize("number", ["-1", "", "none"])
def test_a_remote_port_that_is_no_target_is_not_known(sys: Machine, number: str) -> None:
    sys.hba(2)
    sys.rport(2, 0, A, target=0, scsi_target_id=number)
    assert plan(sys, volume(A, enable_wildcard_scan=False)) == []
    assert plan(sys, volume(A)) == ["host2 - - 1"]


@pytest.mark.parametrize("state", ["Blocked", "Not Present", "Offline", "Linkdown"])
def test_a_remote_port_that_is_down_is_not_scanned_nor_is_anything_by_wildcard(
    sys: Machine, state: str
) -> None:
    sys.hba(2)
    sys.rport(2, 0, A, target=0, port_state=state)
    sys.target(2, 0, A, rport=0)
    assert plan(sys, volume(A)) == []
    sys.rport(2, 1, B, target=1)
    assert plan(sys, volume(A, B)) == ["host2 0 1 1"]


@pytest.mark.parametrize("state", ["Online", "Marginal", ""])
def test_a_remote_port_that_takes_commands_is_scanned(sys: Machine, state: str) -> None:
    sys.hba(2)
    sys.rport(2, 0, A, target=0, port_state=state)
    assert plan(sys, volume(A)) == ["host2 0 0 1"]


def test_a_port_of_this_host_that_is_down_is_not_scanned(sys: Machine) -> None:
    sys.hba(2, state="Linkdown")
    sys.hba(3)
    for host in (2, 3):
        sys.rport(host, 0, A, target=0)
    assert plan(sys, volume(A)) == ["host3 0 0 1"]


def test_wildcards_only_where_nothing_is_known_and_allowed(sys: Machine) -> None:
    first = sys.hba(2)
    sys.hba(3)
    sys.hba(4, state="Linkdown")
    sys.rport(2, 0, C, target=0)
    assert plan(sys, volume(A)) == ["host2 - - 1", "host3 - - 1"]
    assert plan(sys, volume(A, initiator_target_map={first: [A]})) == ["host2 - - 1"]
    assert plan(sys, volume(A, initiator_target_map={first: [C]})) == []
    assert plan(sys, volume(A, enable_wildcard_scan=False)) == []


def test_a_wildcard_for_each_lun(sys: Machine) -> None:
    sys.hba(2)
    wanted = FcVolume.parse({"target_wwns": [A, B, C], "target_luns": [5, 6, 5]})
    assert plan(sys, wanted) == ["host2 - - 5", "host2 - - 6"]


def test_a_lun_is_scanned_in_its_addressing(sys: Machine) -> None:
    sys.hba(2)
    sys.rport(2, 0, A, target=0)
    assert plan(sys, volume(A, lun=256, addressing_mode="SAM2")) == ["host2 0 0 16640"]


def test_unreadable_targets_leave_the_remote_ports(
    sys: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    sys.hba(2)
    sys.rport(2, 0, A, target=0)
    sys.target(2, 7, A, rport=0)  # the port had another number before
    name = sys.root / "class/fc_transport/target2:0:7/port_name"
    name.unlink()
    name.mkdir()
    hbas, wanted = fc.read_hbas(sys.tree), volume(A)
    ways = fc_paths.read_ways(sys.tree, hbas, wanted, strict=False)
    assert [Scan.of(path) for path in ways.meant] == [Scan(2, "0", "0", 1)]
    assert "target2:0:7" in caplog.text
    with pytest.raises(IsADirectoryError):
        fc_paths.read_ways(sys.tree, hbas, wanted)


def test_targets_that_the_remote_ports_tell_are_not_read_again(sys: Machine) -> None:
    sys.hba(2)
    sys.rport(2, 0, A, target=0)
    sys.target(2, 0, A, rport=0)
    name = sys.root / "class/fc_transport/target2:0:0/port_name"
    name.unlink()
    name.mkdir()
    ways = fc_paths.read_ways(sys.tree, fc.read_hbas(sys.tree), volume(A))
    assert [Scan.of(path) for path in ways.meant] == [Scan(2, "0", "0", 1)]


def test_a_port_under_two_numbers_is_two_paths() -> None:
    """So it is after the port came back while devices under its old number are still there."""
    ports = [fc.RemotePort(2, 0, number, "50060e8000010000", "Online") for number in (0, 7)]
    one, other = (fc_paths.FcPath(hba("pci0000:00/0000:05:00.3"), port, 1) for port in ports)
    assert one.lock_name != other.lock_name
    same = dataclasses.replace(one, lun=0x4001)  # another coding of the number
    assert one.lock_name == same.lock_name


def test_a_state_does_not_make_another_path_of_it() -> None:
    one = hba("pci0000:00/0000:05:00.3")
    assert dataclasses.replace(one, state="Linkdown") == one
