# SPDX-License-Identifier: Apache-2.0
"""Multipath maps in sysfs, what multipathd answers, and what ``multipath -l`` prints."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import exception
from os_brick.initiator.linux import multipath, multipath_lookup, scsi
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.multipath_listing import ACTIONS, ListedMap, parse_listing
from os_brick.initiator.linux.scsi import Disk, Hctl
from os_brick.initiator.linux.sysfs import Tree
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.linux.trees import Sysfs

DATA = pathlib.Path(__file__).parent / "data"
WWID = "36001405abcdef0123456789abcdef012"
PATHS = (("sdk", Hctl(3, 0, 0, 4)), ("sdm", Hctl(4, 0, 0, 4)))


def listing(name: str) -> str:
    return (DATA / f"{name}.txt").read_text()


# -- what multipath -l prints ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("multipath-l_friendly-name_two-groups", ListedMap("mpathk", WWID, PATHS)),
        ("multipath-l_bare-wwid_one-group", ListedMap(WWID, WWID, PATHS)),
        ("multipath-l_complaints-before", ListedMap("mpathk", WWID, PATHS)),
        ("multipath-l_path-gone", ListedMap("mpathk", WWID, PATHS[:1])),
        (
            "multipath-l_two-maps",
            ListedMap("mpatha", "36001405aaaaaaaaaaaaaaaaaaaaaaaaa", (("sda", Hctl(2, 0, 0, 1)),)),
        ),
        ("multipath-0.9.4_l_without-device-mapper", None),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_each_form_of_the_listing_is_read(
    name: str, expected: ListedMap | None, line_end: str
) -> None:
    assert parse_listing(listing(name).replace("\n", line_end)) == expected


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("form", ["friendly-name_two-groups", "bare-wwid_one-group"])
def test_an_action_before_the_name_is_not_the_name(action: str, form: str) -> None:
    text = listing(f"multipath-l_{form}")
    assert parse_listing(f"{action} {text}") == parse_listing(text)


def test_a_map_that_is_only_planned_has_no_kernel_name_yet() -> None:
    text = f"create: mpatha ({WWID}) undef LIO-ORG,disk\n"
    assert parse_listing(text) == ListedMap("mpatha", WWID, ())


def test_a_lun_of_64_bits_is_read() -> None:
    text = listing("multipath-l_bare-wwid_one-group").replace(
        "3:0:0:4", "3:0:0:4611686018427387904"
    )
    found = parse_listing(text)
    assert found is not None
    assert found.paths[0] == ("sdk", Hctl(3, 0, 0, 4611686018427387904))


@pytest.mark.parametrize("text", ["", "\n\n", "multipath-tools v0.9.4\n", "Mar 01 10:00:00 | no"])
def test_no_map_is_none(text: str) -> None:
    assert parse_listing(text) is None


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    found = parse_listing(text)
    assert found is None or found.name


@given(st.lists(st.sampled_from(["", "Mar 01 10:00:00 | x", "12.5 | 1:2:3:4 sdz 8:0 active"])))
def test_complaints_change_nothing_wherever_they_stand(complaints: list[str]) -> None:
    text = listing("multipath-l_friendly-name_two-groups")
    lines = text.splitlines()
    for position, complaint in enumerate(complaints):
        lines.insert(position * 2 % (len(lines) + 1), complaint)
    assert parse_listing("\n".join(lines)) == parse_listing(text)


# -- paths -----------------------------------------------------------------------------------------
def test_paths_are_told_by_name_and_address() -> None:
    text = "sda 3:0:0:1\nsdb 4:0:0:1\n\n"
    assert multipath.parse_paths(text) == {("sda", "3:0:0:1"), ("sdb", "4:0:0:1")}


@given(st.text())
def test_any_text_is_some_paths_or_none(text: str) -> None:
    for name, address in multipath.parse_paths(text):
        assert name
        assert address


# -- maps in sysfs ---------------------------------------------------------------------------------
@pytest.fixture
def sys(tmp_path: pathlib.Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


@pytest.fixture
def tree(sys: Sysfs) -> Tree:
    return Tree(str(sys.root))


def disk(tree: Tree, name: str) -> Disk:
    found = scsi.read_disk_named(tree, name)
    assert found is not None
    return found


@pytest.mark.parametrize("uuid", ["LVM-aB3", "CRYPT-LUKS2-1", f"part1-mpath-{WWID}", ""])
def test_other_mappings_are_no_multipath_maps(sys: Sysfs, tree: Tree, uuid: str) -> None:
    sys.disk("sda", "3:0:0:1")
    sys.mapping("dm-0", "volume", uuid, "sda")
    assert multipath.read_map(tree, "dm-0") is None
    assert multipath.find_map_over(tree, disk(tree, "sda")) is None


def test_a_map_is_found_over_each_of_its_disks_once(sys: Sysfs, tree: Tree) -> None:
    for name, hctl in (("sda", "3:0:0:1"), ("sdb", "4:0:0:1"), ("sdc", "4:0:0:2")):
        sys.disk(name, hctl)
    sys.mapping("dm-0", "volume", "LVM-aB3", "sda")
    sys.mapping("dm-1", "mpatha", f"mpath-{WWID}", "sda", "sdb")
    (one,) = multipath.find_maps(tree, [disk(tree, name) for name in ("sda", "sdb", "sdc")])
    assert (one.name, one.label, one.wwid, one.path) == ("dm-1", "mpatha", WWID, "/dev/dm-1")
    assert str(one) == "dm-1 (mpatha)"
    assert multipath.read_members(tree, one) == [disk(tree, "sda"), disk(tree, "sdb")]
    assert multipath.find_map_on(tree, "sdb") == one


@pytest.mark.parametrize(
    ("suspended", "size", "state", "ready"),
    [
        ("0", "2048", "running", True),
        ("1", "2048", "running", False),
        ("0", "0", "running", False),
        ("0", "2048", "offline", False),
    ],
)
def test_a_map_is_ready_with_a_table_and_a_running_path(
    sys: Sysfs, tree: Tree, suspended: str, size: str, state: str, ready: bool
) -> None:
    sys.disk("sda", "3:0:0:1", state=state)
    sys.mapping("dm-0", "mpatha", f"mpath-{WWID}", "sda")
    sys.write("block/dm-0/dm/suspended", suspended)
    sys.write("block/dm-0/size", size)
    one = multipath.read_map(tree, "dm-0")
    assert one is not None
    assert multipath.is_ready(tree, one) is ready


def test_a_later_map_of_the_same_name_is_another(sys: Sysfs, tree: Tree) -> None:
    sys.mapping("dm-0", "mpatha", f"mpath-{WWID}")
    one = multipath.read_map(tree, "dm-0")
    assert one is not None
    assert multipath.is_there(tree, one)
    (sys.root / "devices").rename(sys.root / "old")
    assert not multipath.is_there(tree, one)
    for link in ("block/dm-0", "class/block/dm-0"):
        (sys.root / link).unlink()
    sys.mapping("dm-0", "mpatha", f"mpath-{WWID}")
    assert not multipath.is_there(tree, one)


# -- finding a map by other names ------------------------------------------------------------------
def attach(fake: FakeHost) -> tuple[str, str]:
    """Attach a volume; return the path of its map, and its wwid."""
    volume = fake.iscsi_target(portals=2).lun(1)
    info = fake.connector("ISCSI", use_multipath=True).connect_volume(volume.properties)
    fake.pass_time(1)
    fake.forget()
    return info["path"], volume.wwid


@pytest.mark.parametrize("friendly", [True, False])
@pytest.mark.parametrize("links", [True, False])
def test_a_map_is_found_by_whatever_names_it(
    fake_host: FakeHost, friendly: bool, links: bool
) -> None:
    fake_host.multipathd.user_friendly_names = friendly
    path, wwid = attach(fake_host)
    name = path.rpartition("/")[2]
    expected = multipath.read_map(fake_host.host.sysfs, name)
    assert expected is not None
    if not links:
        for directory in ("disk/by-id", "mapper"):
            for entry in (pathlib.Path(fake_host.host.dev.root) / directory).iterdir():
                entry.unlink()
    for text in (path, name, wwid, expected.label):
        assert multipath_lookup.find_map(fake_host.host, text) == expected
    if links:
        link = f"/dev/disk/by-id/dm-uuid-mpath-{wwid}"
        assert multipath_lookup.find_map(fake_host.host, link) == expected


@pytest.mark.parametrize("text", ["", "dm-9", "mpathz", "/dev/dm-9", "/dev/sda", "/etc/passwd"])
def test_what_names_no_map_finds_none(fake_host: FakeHost, text: str) -> None:
    attach(fake_host)
    assert multipath_lookup.find_map(fake_host.host, text) is None


def test_a_link_left_over_is_not_believed(fake_host: FakeHost) -> None:
    path, _wwid = attach(fake_host)
    stale = pathlib.Path(fake_host.host.dev.path("disk/by-id/dm-uuid-mpath-36001405other"))
    stale.symlink_to(f"../../{path.rpartition('/')[2]}")
    assert multipath_lookup.find_map(fake_host.host, "36001405other") is None


def test_a_map_that_comes_late_is_waited_for(fake_host: FakeHost) -> None:
    call = Call("test", fake_host.host.clock, 60)
    volume = fake_host.iscsi_target().lun(1)
    fake_host.multipathd.find_multipaths = "strict"
    fake_host.connector("ISCSI").connect_volume(volume.properties)
    fake_host.pass_time(1)
    (one,) = fake_host.disks()
    fake_host.multipathd.wwids.add(volume.wwid)
    fake_host.delays.udev_s = 1
    fake_host.after(4, lambda: fake_host.multipathd.consider(one, by_command=True))
    found = multipath_lookup.wait_for_map_path(fake_host.host, call, volume.wwid)
    assert found == "/dev/dm-0", "udev has not made its links yet"
    fake_host.pass_time(2)
    found = multipath_lookup.wait_for_map_path(fake_host.host, call, volume.wwid)
    assert found == f"/dev/disk/by-id/dm-uuid-mpath-{volume.wwid}"


def test_a_map_that_does_not_come_is_none(fake_host: FakeHost) -> None:
    call = Call("test", fake_host.host.clock, 60)
    assert multipath_lookup.wait_for_map_path(fake_host.host, call, WWID) is None
    assert call.elapsed_s() < 10


# -- asking the listing ----------------------------------------------------------------------------
def test_the_listing_is_asked_by_the_real_device(fake_host: FakeHost) -> None:
    attach(fake_host)
    disk_name = fake_host.disks()[0].name
    call = Call("test", fake_host.host.clock, 60)
    link = f"/dev/disk/by-path/{fake_host.host.dev.names('disk/by-path')[0]}"
    found = multipath_lookup.list_map(fake_host.host, call, link)
    assert found is not None
    assert {name for name, _hctl in found.paths} == {one.name for one in fake_host.disks()}
    assert disk_name in {name for name, _hctl in found.paths}
    ((_program, option, device),) = fake_host.started
    assert option == "-l"
    assert device in {f"/dev/{one.name}" for one in fake_host.disks()}


def test_a_map_without_its_node_is_not_listed(fake_host: FakeHost) -> None:
    path, wwid = attach(fake_host)
    pathlib.Path(fake_host.host.dev.path("mapper", wwid)).unlink()
    call = Call("test", fake_host.host.clock, 60)
    assert multipath_lookup.list_map(fake_host.host, call, path) is None


def test_a_listing_that_fails_is_an_error(fake_host: FakeHost) -> None:
    fake_host.faults.fail("multipath", "-l", code=1, err="no device-mapper")
    call = Call("test", fake_host.host.clock, 60)
    with pytest.raises(
        exception.CommandExecutionFailed,
        match=r"^Failed to execute command multipath -l /dev/sda.*no device-mapper",
    ):
        multipath_lookup.list_map(fake_host.host, call, "/dev/sda")
