# SPDX-License-Identifier: Apache-2.0
"""Portals, targets and LUNs of iSCSI as values, whatever their spelling; sessions in sysfs."""

from __future__ import annotations

import ipaddress
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import exception
from os_brick.initiator.linux import iscsi, scsi
from os_brick.initiator.linux.iscsi import IscsiPath, Portal, Target
from os_brick.initiator.linux.scsi import Hctl
from os_brick.initiator.linux.sysfs import Tree
from os_brick.tests.unit.initiator.linux.trees import Sysfs

IQN = "iqn.2010-10.org.example:target-1"


# -- portals ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1:3260", "10.0.0.1", 3260),
        ("10.0.0.1:3260,1", "10.0.0.1", 3260),
        ("10.0.0.1:3260,-1", "10.0.0.1", 3260),
        ("10.0.0.1", "10.0.0.1", 3260),
        (" 10.0.0.1:860 ", "10.0.0.1", 860),
        ("[2001:db8::1]:3260", "2001:db8::1", 3260),
        ("[2001:DB8:0::1]:3260,1", "2001:db8::1", 3260),
        ("[2001:db8::1]", "2001:db8::1", 3260),
        ("Storage-1.Example.org:3260", "storage-1.example.org", 3260),
        ("storage", "storage", 3260),
    ],
)
def test_every_spelling_of_a_portal_is_read(text: str, host: str, port: int) -> None:
    assert Portal.parse(text) == Portal(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":3260",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "10.0.0.1:x",
            "10.0.0.1:\uff13\uff12",
        ),
        *("[2001:db8::1:3260", "[]:3260,-1", "host name:3260", "-x:3260", "a/b:3260", None, 3260),
    ],
)
def test_what_is_no_portal_is_refused_by_the_name_of_its_key(text: object) -> None:
    with pytest.raises(exception.InvalidParameterValue, match=r"target_portals\[1\]: expected"):
        Portal.parse(text, "target_portals[1]")


@given(st.one_of(st.text(), st.none(), st.integers(), st.binary()))
def test_anything_is_a_portal_or_refused(text: object) -> None:
    try:
        portal = Portal.parse(text)
    except exception.InvalidParameterValue:
        return
    assert Portal.parse(str(portal)) == portal


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PORTS = st.integers(min_value=1, max_value=65535)


def spellings(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    texts = {str(address), address.exploded, str(address).upper(), address.exploded.upper()}
    return sorted(f"[{text}]" if address.version == 6 else text for text in texts)


@given(ADDRESSES, PORTS, st.sampled_from(["", ",1", ",-1", ",65535"]), st.data())
def test_two_spellings_of_an_address_are_one_portal(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    tag: str,
    data: st.DataObject,
) -> None:
    one, other = (data.draw(st.sampled_from(spellings(address))) for _ in range(2))
    assert Portal.parse(f"{one}:{port}{tag}") == Portal.parse(f"{other}:{port}")


@given(ADDRESSES, PORTS)
def test_a_portal_survives_being_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    portal = Portal(str(address), port)
    assert Portal.parse(str(portal)) == portal
    assert "[" not in portal.bare
    assert not portal.is_name


def test_a_name_has_to_be_resolved_and_its_letters_case_says_nothing() -> None:
    assert Portal.parse("STORAGE:3260") == Portal.parse("storage:3260")
    assert Portal.parse("storage:3260").is_name


# -- targets ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [IQN, "eui.0123456789ABCDEF", "naa.6001405abc", f" {IQN} "])
def test_the_three_kinds_of_target_names_are_taken(name: str) -> None:
    assert iscsi.target_name(name) == name.strip()


@pytest.mark.parametrize(
    "name",
    ["", "target", "iqn.", "iqn.a/../../b", "iqn.a b", "iqn.$(id)", "iqn.a;b", "iqn.`id`", None, 1],
)
def test_what_is_no_target_name_is_refused(name: object) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="target_iqn: expected"):
        iscsi.target_name(name)


@given(st.text(min_size=1).map(lambda text: f"iqn.{text}"))
def test_no_name_that_is_taken_could_be_an_option_or_leave_its_directory(name: str) -> None:
    try:
        taken = iscsi.target_name(name)
    except exception.InvalidParameterValue:
        return
    assert not taken.startswith("-")
    assert not set("/\\,;'\"`$ \n") & set(taken)


def test_users_of_a_session_lock_the_same_whatever_the_spelling() -> None:
    one = Target(Portal.parse("[2001:DB8::1]:3260,1"), IQN.upper().replace("IQN", "iqn"))
    other = Target(Portal.parse("[2001:db8::1]:3260"), IQN)
    assert one.lock_name == other.lock_name
    assert one.login_lock_name == other.login_lock_name != one.lock_name


def test_a_volume_is_locked_the_same_by_each_of_its_ways() -> None:
    one = IscsiPath(Target(Portal("10.0.0.1", 3260), IQN), 256)
    other = IscsiPath(
        Target(Portal("10.0.0.2", 3260), IQN), scsi.lun_for_addressing(256, "SAM3-flat")
    )
    assert one.volume_lock_name == other.volume_lock_name
    assert str(one) == f"LUN 256 of {IQN} on 10.0.0.1:3260"


# -- sessions --------------------------------------------------------------------------------------
@pytest.fixture
def sys(tmp_path: pathlib.Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


@pytest.fixture
def tree(sys: Sysfs) -> Tree:
    return Tree(str(sys.root))


TARGET = Target(Portal("2001:db8::1", 3260), IQN)


def test_a_session_is_recognised_by_value(sys: Sysfs, tree: Tree) -> None:
    sys.session(7, 3, IQN.upper().replace("IQN", "iqn"), "2001:0DB8:0:0::1")
    sys.session(8, 4, IQN, "10.0.0.2")
    sys.session(9, 5, f"{IQN}0", "2001:db8::1")
    found = iscsi.find_sessions(tree, TARGET)
    assert [session.sid for session in found] == [7]
    assert (found[0].host, found[0].state) == (3, iscsi.LOGGED_IN)


def test_sessions_come_in_the_order_they_were_made(sys: Sysfs, tree: Tree) -> None:
    for sid in (10, 9, 2):
        sys.session(sid, sid, IQN, "10.0.0.1")
    assert [session.sid for session in iscsi.read_sessions(tree)] == [2, 9, 10]


def test_a_redirected_session_serves_the_portal_it_was_made_for(sys: Sysfs, tree: Tree) -> None:
    sys.session(1, 2, IQN, "10.0.0.1")
    sys.write("class/iscsi_connection/connection1:0/address", "10.9.9.9")
    (session,) = iscsi.read_sessions(tree)
    for address in ("10.0.0.1", "10.9.9.9"):
        assert session.serves(Target(Portal(address, 3260), IQN))
    assert not session.serves(Target(Portal("10.0.0.2", 3260), IQN))


def test_a_session_of_a_host_name_serves_it_by_its_addresses(sys: Sysfs, tree: Tree) -> None:
    sys.session(1, 2, IQN, "10.0.0.1")
    (session,) = iscsi.read_sessions(tree)
    named = Target(Portal("storage", 3260), IQN)
    assert not session.serves(named)
    assert session.serves(named, [Portal("10.0.0.1", 3260)])


def test_a_session_that_is_being_made_has_no_name_and_is_left_out(sys: Sysfs, tree: Tree) -> None:
    sys.session(1, 2, "", "10.0.0.1")
    assert iscsi.read_sessions(tree) == []
    assert iscsi.read_session(tree, 1) is None


def test_a_session_is_found_by_its_number(sys: Sysfs, tree: Tree) -> None:
    sys.session(1, 2, IQN, "10.0.0.1")
    assert iscsi.read_session(tree, 1) == iscsi.read_sessions(tree)[0]
    assert iscsi.read_session(tree, 2) is None


def test_sessions_that_cannot_be_looked_at_are_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        iscsi.read_sessions(Tree(str(tmp_path / "not-mounted")))


# -- disks of a session ----------------------------------------------------------------------------
def test_a_lun_is_found_under_either_coding_of_its_number(sys: Sysfs, tree: Tree) -> None:
    sys.session(1, 3, IQN, "10.0.0.1")
    sys.disk("sda", "3:0:0:16640", session=1)
    (session,) = iscsi.read_sessions(tree)
    for lun in (256, 16640):
        disk = iscsi.find_disk(tree, session, lun)
        assert disk is not None
        assert disk.hctl == Hctl(3, 0, 0, 16640)
    assert iscsi.find_disk(tree, session, 257) is None


def test_a_sessions_devices_are_its_own(sys: Sysfs, tree: Tree) -> None:
    sys.session(1, 3, IQN, "10.0.0.1")
    sys.session(2, 4, IQN, "10.0.0.2")
    sys.disk("sda", "3:0:0:1", session=1)
    sys.disk("sdb", "4:0:0:1", session=2)
    one, other = iscsi.read_sessions(tree)
    assert iscsi.read_devices(tree, one) == [Hctl(3, 0, 0, 1)]
    assert iscsi.targets_of(tree, other) == [(0, 0)]
    disk = scsi.read_disk(tree, Hctl(4, 0, 0, 1))
    assert disk is not None
    assert iscsi.session_of_disk(tree, disk) == other


def test_a_disk_of_another_transport_has_no_session(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1")
    disk = scsi.read_disk(tree, Hctl(3, 0, 0, 1))
    assert disk is not None
    assert iscsi.session_of_disk(tree, disk) is None


def test_a_session_with_an_arrays_controller_only_is_unused(sys: Sysfs, tree: Tree) -> None:
    sys.session(1, 3, IQN, "10.0.0.1")
    (session,) = iscsi.read_sessions(tree)
    assert not iscsi.is_used(tree, session)
    sys.disk("sda", "3:0:0:0", session=1, type="12")
    assert not iscsi.is_used(tree, session)
    sys.disk("sdb", "3:0:0:1", session=1)
    assert iscsi.is_used(tree, session)


def test_a_session_that_ends_is_gone(sys: Sysfs, tree: Tree) -> None:
    sys.session(1, 3, IQN, "10.0.0.1")
    (session,) = iscsi.read_sessions(tree)
    assert iscsi.is_there(tree, session)
    assert iscsi.state(tree, session) == iscsi.LOGGED_IN
    (sys.root / "class/iscsi_session/session1").unlink()
    assert not iscsi.is_there(tree, session)
    assert iscsi.state(tree, session) == ""
