# SPDX-License-Identifier: Apache-2.0
"""Targets that are given, and targets that have to be discovered."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.storage import GIB, Volume
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import commands, side_by_side


def discoveries(host: FakeHost) -> list[tuple[str, ...]]:
    """Return the commands that ask an array."""
    return commands(host, "discovery") + commands(host, "--discover")


def test_given_targets_need_no_discovery(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    connector.disconnect_volume(volume.properties, info)
    assert discoveries(fake_host) == []
    assert commands(fake_host, "discoverydb") == []


def test_single_path_uses_only_the_properties(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector()
    info = connector.connect_volume(volume.connection(plural=False))
    assert discoveries(fake_host) == []
    connector.disconnect_volume(volume.connection(plural=False), info)
    assert discoveries(fake_host) == []
    assert fake_host.leftovers() == []


def test_multipath_with_one_given_target_finds_the_other_portals(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=3).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    assert len(discoveries(fake_host)) == 1
    assert len(fake_host.multipathd.maps()[0].slaves) == 3
    fake_host.forget()
    connector.disconnect_volume(properties, info)
    assert discoveries(fake_host) == []
    assert fake_host.leftovers() == []


def test_an_array_with_one_name_on_all_portals_is_logged_in_to_by_that_name(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=3).lun(1)
    for _ in range(5):
        fake_host.iscsi_target(portals=3).lun(1)  # targets of other volumes behind the same portals
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.connection(plural=False))
    assert {one.iqn for one in fake_host.sessions.all()} == {volume.target.iqn}
    assert len(fake_host.sessions.all()) == 3
    connector.disconnect_volume(volume.connection(plural=False), info)
    assert fake_host.sessions.all() == []


def test_an_array_with_a_name_for_each_portal_is_logged_in_to_by_all(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=3, shared_iqn=False).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    assert {one.iqn for one in fake_host.sessions.all()} == set(volume.target.iqns)
    assert len(fake_host.multipathd.maps()[0].slaves) == 3
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def mixed_portals(host: FakeHost, **mine: Any) -> tuple[Volume, Volume]:
    """Return a volume, and another one whose target is behind a portal more: both are LUN 0."""
    wanted = host.iscsi_target(["10.0.0.1:3260"], iqn="iqn.2010-10.org.example:mine", **mine)
    other = host.iscsi_target(portals=2, iqn="iqn.2010-10.org.example:other")
    return wanted.lun(0), other.lun(0)


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("scans", ["by hand", "by itself"])
def test_what_other_targets_of_the_portal_show_is_not_taken_for_the_volume(
    fake_host: FakeHost, attached: bool, scans: str
) -> None:
    if scans == "by itself":
        fake_host.faults.fail(
            "iscsiadm", "--op", "update", "node.session.scan", code=7, times=float("inf")
        )
    wanted, other = mixed_portals(fake_host)
    connector = fake_host.connector(use_multipath=True)
    if attached:
        connector.connect_volume(other.properties)
        fake_host.pass_time(2)
    fake_host.remember(anew=True)
    before = fake_host.inventory()
    properties = wanted.connection(plural=False)
    info = connector.connect_volume(properties)
    assert info["scsi_wwn"] == wanted.wwid
    assert len(fake_host.disks()) == (3 if attached else 1), "what it has shown is taken back"
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []
    assert fake_host.inventory() == before


@pytest.mark.parametrize("trouble", ["password", "not mapped"])
def test_no_other_target_stands_in_for_the_one_that_gives_nothing(
    fake_host: FakeHost, trouble: str
) -> None:
    wanted, other = mixed_portals(fake_host, chap=("user", "s3cret"))
    properties = wanted.connection(plural=False)
    if trouble == "password":
        properties["auth_password"] = "wr0ng"
    else:
        wanted.vanish()
    connector = fake_host.connector(use_multipath=True)
    connector.connect_volume(other.properties)
    fake_host.pass_time(2)
    before = fake_host.inventory()
    with pytest.raises(exception.VolumeDeviceNotFound) as caught:
        connector.connect_volume(properties)
    assert wanted.target.iqn in str(caught.value)
    fake_host.pass_time(5)
    assert fake_host.inventory() == before


@pytest.mark.parametrize("apart_s", [0, 0.03, 0.05, 0.07, 0.1, 0.15])
def test_two_volumes_that_a_discovery_finds_for_each_other(
    fake_host: FakeHost, apart_s: float
) -> None:
    volumes = mixed_portals(fake_host)
    connector = fake_host.connector(use_multipath=True)

    def attach(number: int) -> Any:
        fake_host.pass_time(number * apart_s)
        return connector.connect_volume(volumes[number].connection(plural=False))

    infos = side_by_side(fake_host, partial(attach, 0), partial(attach, 1))
    assert [info["scsi_wwn"] for info in infos] == [volume.wwid for volume in volumes]
    fake_host.pass_time(30)
    assert [len(one.slaves) for one in fake_host.multipathd.maps()] in ([1, 2], [2, 1])
    for volume, info in zip(volumes, infos, strict=True):
        fake_host.write(info["path"], b"data")
        connector.disconnect_volume(volume.connection(plural=False), info)
        assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_startup_modes_of_other_nodes_survive_a_discovery(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    other = fake_host.iscsi_target(portals=2)
    record = fake_host.node_records.create(other.iqn, "10.0.0.1", 3260, 1, "default")
    record.settings["node.startup"] = "automatic"
    fake_host.connector(use_multipath=True).connect_volume(volume.connection(plural=False))
    assert fake_host.node_records.match(other.iqn) == [record], "and none is left of the others"
    assert record.settings["node.startup"] == "automatic"


def test_detach_after_discovery_needs_no_array(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=3).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    connector.connect_volume(properties)
    for portal in volume.target.portals:
        portal.kill()
    fake_host.forget()
    connector.disconnect_volume(properties, None, force=True, ignore_errors=True)
    assert discoveries(fake_host) == []
    assert fake_host.disks() == []
    assert fake_host.leftovers() == []


def test_detach_finds_disks_of_other_portals_when_the_named_one_has_none(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=3, shared_iqn=False).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    named = next(one for one in fake_host.sessions.all() if one.iqn == volume.target.iqn)
    fake_host.sessions.end(named)  # the array has dropped this one
    fake_host.pass_time(1)
    fake_host.write("/dev/dm-0", b"data")
    fake_host.forget()
    connector.disconnect_volume(properties, info)
    assert discoveries(fake_host) == []
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_an_identity_of_a_kind_that_the_disks_do_not_have_hides_none_of_them(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    (named,) = fake_host.sessions.find(volume.target.iqn, ("10.0.0.1", 3260))
    fake_host.sessions.end(named)  # the array has dropped this one
    fake_host.pass_time(1)
    fake_host.write("/dev/dm-0", b"data")
    connector.disconnect_volume(properties, info | {"multipath_id": "of-another-uid-attribute"})
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.fixture
def neighbour(fake_host: FakeHost) -> tuple[Volume, Volume]:
    """Return a volume that is attached and written to, and one that is not here.

    Both have LUN 0 of a target of their own behind the same portals, and somebody's discovery has
    left a record of the first.
    """
    here = fake_host.iscsi_target(portals=2).lun(0, size=7 * GIB)
    fake_host.execute("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", "10.0.0.1:3260")
    away = fake_host.iscsi_target(portals=2).lun(0)
    info = fake_host.connector(use_multipath=True).connect_volume(here.properties)
    fake_host.pass_time(2)
    fake_host.write(info["path"], b"data")
    return here, away


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("multipath", [False, True])
def test_detach_of_what_is_not_here_leaves_other_targets_of_the_portal_alone(
    fake_host: FakeHost,
    neighbour: tuple[Volume, Volume],
    multipath: bool,
    known: bool,
    force: bool,
) -> None:
    here, away = neighbour
    fake_host.open("/dev/dm-0")
    before = fake_host.inventory()
    info = {"path": "/dev/dm-9", "scsi_wwn": away.wwid, "type": "block"} if known else None
    fake_host.connector(use_multipath=multipath).disconnect_volume(
        away.connection(plural=False), info, force=force, ignore_errors=force
    )
    assert fake_host.inventory() == before
    assert fake_host.lost == []
    assert here.data == b""


def test_a_second_detach_leaves_other_targets_of_the_portal_alone(
    fake_host: FakeHost, neighbour: tuple[Volume, Volume]
) -> None:
    _here, away = neighbour
    connector = fake_host.connector(use_multipath=True)
    before = fake_host.inventory()
    connector.connect_volume(away.connection(plural=False))
    for _ in range(2):
        connector.disconnect_volume(away.connection(plural=False), None)
    fake_host.pass_time(1)
    assert fake_host.inventory() == before


def test_extend_of_what_is_not_here_gives_no_other_volumes_size(
    fake_host: FakeHost, neighbour: tuple[Volume, Volume]
) -> None:
    _here, away = neighbour
    with pytest.raises(exception.VolumePathsNotFound):
        fake_host.connector().extend_volume(away.connection(plural=False))


def test_records_of_the_same_name_that_a_discovery_left_go_with_the_volume(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.remember()
    fake_host.execute("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", "10.0.0.1:3260")
    fake_host.connector().disconnect_volume(volume.connection(plural=False), None)
    assert fake_host.node_records.nodes == {}


def test_the_setting_may_change_between_a_discovered_attach_and_its_detach(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=3).lun(1)
    properties = volume.connection(plural=False)
    fake_host.connector(use_multipath=True).connect_volume(properties)
    fake_host.write("/dev/dm-0", b"data")
    fake_host.connector(use_multipath=False).disconnect_volume(properties, None)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("fault", ["silent", "refuse"])
def test_a_discovery_that_fails_says_which_portal(fake_host: FakeHost, fault: str) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    getattr(volume.target.portals[0], fault)()
    with pytest.raises(exception.TargetPortalNotFound, match=r"10\.0\.0\.1:3260"):
        fake_host.connector(use_multipath=True).connect_volume(volume.connection(plural=False))
    assert fake_host.now <= 600
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("code", [1, 4, 6, 21, 24, 255])
def test_a_discovery_that_exits_badly(fake_host: FakeHost, code: int) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.faults.fail("iscsiadm", "discovery", code=code, times=100)
    with pytest.raises(exception.TargetPortalNotFound):
        fake_host.connector(use_multipath=True).connect_volume(volume.connection(plural=False))
    assert fake_host.leftovers() == []


def test_a_discovery_that_hangs_ends(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.faults.hang("iscsiadm", "discovery")
    with pytest.raises(exception.BrickException):
        fake_host.connector(use_multipath=True).connect_volume(volume.connection(plural=False))
    assert fake_host.now <= 600


def test_debug_lines_are_no_targets(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.faults.mumble(
        "iscsiadm",
        "discovery",
        out="iscsiadm: connect to nowhere iqn.x\n10.9.9.9:3260,1 something.else\n\n# x\n",
        err="iscsiadm: warning\n",
    )
    fake_host.connector(use_multipath=True).connect_volume(volume.connection(plural=False))
    assert len(fake_host.sessions.all()) == 2
    assert len(fake_host.node_records.nodes) == 2


def test_discovery_with_credentials(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(
        portals=2, chap=("user", "s3cret"), discovery_chap=("finder", "t0psecret")
    )
    volume = target.lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    assert len(fake_host.multipathd.maps()[0].slaves) == 2
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("apart_s", [0, 0.01, 0.02, 0.03, 0.032, 0.034, 0.036, 0.04, 0.05])
def test_discoveries_with_credentials_side_by_side(fake_host: FakeHost, apart_s: float) -> None:
    volumes = [
        fake_host.iscsi_target(portals=2, discovery_chap=("finder", "t0psecret")).lun(1)
        for _ in range(2)
    ]

    def attach(number: int) -> Any:
        fake_host.pass_time(number * apart_s)
        connector = fake_host.connector(use_multipath=True)
        return connector.connect_volume(volumes[number].connection(plural=False))

    infos = side_by_side(fake_host, partial(attach, 0), partial(attach, 1))
    assert [info["scsi_wwn"] for info in infos] == [volume.wwid for volume in volumes]
    assert fake_host.node_records.discoveries == {}


def test_wrong_discovery_credentials_are_told_without_the_secret(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    target = fake_host.iscsi_target(portals=2, discovery_chap=("finder", "t0psecret"))
    volume = target.lun(1)
    with pytest.raises(exception.TargetPortalNotFound) as caught:
        fake_host.connector(use_multipath=True).connect_volume(
            volume.connection(plural=False, discovery_auth_password="wr0ng")
        )
    assert "24" in str(caught.value)
    assert "wr0ng" not in str(caught.value) + caplog.text
    assert fake_host.leftovers() == []


def test_ipv6_discovery(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(["[2001:db8::1]:3260", "[2001:db8::2]:3260"]).lun(1)
    properties = volume.connection(plural=False, spelling=str.upper)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(properties)
    assert len(fake_host.multipathd.maps()[0].slaves) == 2
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []
