# SPDX-License-Identifier: Apache-2.0
"""Block devices of any kind: size, users, write-out; and which one a path leads to."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import stat

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.linux import block, multipath, nodes, read_only
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.sysfs import Tree
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.linux.trees import Sysfs


@pytest.fixture
def sys(tmp_path: pathlib.Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


@pytest.fixture
def tree(sys: Sysfs) -> Tree:
    return Tree(str(sys.root))


@pytest.fixture
def call(fake_host: FakeHost) -> Call:
    return Call("test", fake_host.host.clock, 600)


def attach(fake_host: FakeHost, portals: int = 1) -> str:
    """Attach a volume and return its path; with several portals that of a map."""
    fake_host.multipathd.find_multipaths = "strict"
    volume = fake_host.iscsi_target(portals=portals).lun(1)
    connector = fake_host.connector("ISCSI", use_multipath=portals > 1)
    path: str = connector.connect_volume(volume.properties)["path"]
    fake_host.pass_time(1)
    fake_host.forget()
    return path


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


# -- what sysfs says -------------------------------------------------------------------------------
def test_a_size_is_told_in_bytes_whatever_the_block_size(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1")
    sys.write("block/sda/size", "4194304")
    sys.write("block/sda/queue/logical_block_size", "4096")
    assert block.read_size(tree, "sda") == 2 * 1024**3
    assert block.read_size(tree, "sdb") is None


@pytest.mark.parametrize(
    ("stat", "written"),
    [
        ("  120   0  960  12   0   0   0   0   0  10  12", False),
        ("  120   0  960  12   1   0   8   0   0  10  12", True),
        ("", True),
        ("1 2 3", True),
    ],
)
def test_a_disk_was_written_unless_it_says_that_it_was_not(
    sys: Sysfs, tree: Tree, stat: str, written: bool
) -> None:
    sys.disk("sda", "3:0:0:1")
    sys.write("block/sda/stat", stat)
    assert block.was_written(tree, "sda") is written


def test_a_disk_that_is_gone_may_have_been_written(sys: Sysfs, tree: Tree) -> None:
    sys.directory("block")
    assert block.was_written(tree, "sda") is True


def test_partitions_are_told_from_other_directories(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1")
    sys.partition("sda", 1)
    sys.partition("sda", 15)
    sys.directory("block/sda/sda-trace")
    assert block.partitions(tree, "sda") == ["sda1", "sda15"]
    assert block.partitions(tree, "sdb") == []


@pytest.mark.parametrize(
    ("uuid", "expected"),
    [
        ("part1-mpath-36001405abc", True),
        ("mpath-36001405abc", False),
        ("LVM-aB3", False),
        ("part1-CRYPT-1", False),
    ],
)
def test_partitions_of_a_map_are_told_from_other_mappings(
    sys: Sysfs, tree: Tree, uuid: str, expected: bool
) -> None:
    sys.mapping("dm-1", "mpatha-part1", uuid)
    assert block.is_partition_mapping(tree, "dm-1") is expected


# -- users -----------------------------------------------------------------------------------------
def test_nobody_uses_a_volume_that_was_just_attached(fake_host: FakeHost) -> None:
    for path in (attach(fake_host), attach(fake_host, portals=2)):
        assert block.read_users(fake_host.host, name_of(path)) == []


@pytest.mark.parametrize("portals", [1, 2])
def test_a_mount_is_a_use(fake_host: FakeHost, portals: int) -> None:
    path = attach(fake_host, portals)
    fake_host.mount(path, "/mnt/volume")
    (user,) = block.read_users(fake_host.host, name_of(path))
    assert user == f"{name_of(path)} is mounted at /mnt/volume"
    fake_host.unmount("/mnt/volume")
    assert block.read_users(fake_host.host, name_of(path)) == []


@pytest.mark.parametrize("portals", [1, 2])
def test_a_mapping_on_top_is_a_use_and_is_named(fake_host: FakeHost, portals: int) -> None:
    path = attach(fake_host, portals)
    mapping = fake_host.put_on_top(path, "vg-volume")
    (user,) = block.read_users(fake_host.host, name_of(path))
    assert user == f"{name_of(path)} is held by {mapping.name} (vg-volume)"


def test_a_use_of_a_partition_is_a_use_of_the_disk(fake_host: FakeHost) -> None:
    path = attach(fake_host)
    partition = fake_host.devices.add_partition(fake_host.device(path), 1).name
    fake_host.mount(f"/dev/{partition}", "/mnt")
    assert block.read_users(fake_host.host, name_of(path)) == [f"{partition} is mounted at /mnt"]


def test_a_use_of_a_maps_partition_is_a_use_of_the_map(fake_host: FakeHost) -> None:
    path = attach(fake_host, portals=2)
    wwid = multipath.read_map(fake_host.host.sysfs, name_of(path))
    assert wwid is not None
    part = fake_host.put_on_top(path, "mpatha-part1", f"part1-mpath-{wwid.wwid}")
    assert block.read_users(fake_host.host, name_of(path)) == []
    fake_host.mount(f"/dev/{part.name}", "/mnt")
    assert block.read_users(fake_host.host, name_of(path)) == [f"{part.name} is mounted at /mnt"]


def test_a_file_system_with_a_number_of_its_own_is_found_by_its_source(
    fake_host: FakeHost,
) -> None:
    path = attach(fake_host)
    table = pathlib.Path(fake_host.host.proc.path("self/mountinfo"))
    table.write_text(f"99 22 0:45 /sub /mnt rw,relatime shared:7 - btrfs {path} rw,space_cache\n")
    assert block.read_users(fake_host.host, name_of(path)) == [
        f"{name_of(path)} is mounted at /mnt"
    ]


def test_a_mount_table_that_cannot_be_read_is_an_error(fake_host: FakeHost) -> None:
    path = attach(fake_host)
    fake_host.faults.unreadable("proc/self/mountinfo")
    with pytest.raises(PermissionError):
        block.read_users(fake_host.host, name_of(path))


# -- write-out -------------------------------------------------------------------------------------
@pytest.mark.parametrize("portals", [1, 2])
def test_what_was_written_out_is_on_the_storage(
    fake_host: FakeHost, call: Call, portals: int
) -> None:
    path = attach(fake_host, portals)
    fake_host.write(path, b"data")
    block.sync(fake_host.host, call, path, 300)
    assert fake_host.network.targets[0].luns(0)[1].data == b"data"
    assert fake_host.started == [("sync", path)]


def test_what_could_not_be_written_out_is_an_error(fake_host: FakeHost, call: Call) -> None:
    path = attach(fake_host)
    fake_host.write(path, b"data")
    fake_host.network.targets[0].portals[0].kill()
    fake_host.pass_time(130)
    with pytest.raises(processutils.ProcessExecutionError):
        block.sync(fake_host.host, call, path, 300)


def test_a_write_out_that_hangs_is_an_error_at_its_limit(fake_host: FakeHost, call: Call) -> None:
    fake_host.multipathd.no_path_retry = "queue"
    path = attach(fake_host, portals=2)
    fake_host.write(path, b"data")
    for portal in fake_host.network.targets[0].portals:
        portal.kill()
    began = fake_host.now
    with pytest.raises(exception.ExecutionTimeout):
        block.sync(fake_host.host, call, path, 20)
    assert 20 <= fake_host.now - began < 60


# -- nodes -----------------------------------------------------------------------------------------
def link(fake_host: FakeHost, name: str, target: str) -> str:
    path = pathlib.Path(fake_host.host.dev.path(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return f"/dev/{name}"


def test_links_of_any_number_lead_to_the_device(fake_host: FakeHost) -> None:
    path = attach(fake_host)
    first = link(fake_host, "disk/by-id/one", f"../../{name_of(path)}")
    second = link(fake_host, "other", "disk/by-id/one")
    for one in (path, first, second):
        assert nodes.real_node(fake_host.host, one) == path
        assert nodes.kernel_name(fake_host.host, one) == name_of(path)


def test_a_map_is_found_behind_its_link(fake_host: FakeHost) -> None:
    path = attach(fake_host, portals=2)
    over = multipath.read_map(fake_host.host.sysfs, name_of(path))
    assert over is not None
    assert nodes.kernel_name(fake_host.host, f"/dev/mapper/{over.label}") == over.name


@pytest.mark.parametrize("path", [None, "", "sda", "/dev/nothing", "/dev/", "/etc/passwd", "/proc"])
def test_what_leads_to_no_device_has_no_name(fake_host: FakeHost, path: str | None) -> None:
    assert nodes.kernel_name(fake_host.host, path) is None


def test_links_that_lead_nowhere_or_out_of_dev_have_no_name(fake_host: FakeHost) -> None:
    assert nodes.real_node(fake_host.host, link(fake_host, "dangling", "nothing")) is None
    assert nodes.real_node(fake_host.host, link(fake_host, "outside", "/etc/passwd")) is None
    assert nodes.real_node(fake_host.host, link(fake_host, "up", "../sys/class/block")) is None


def test_a_link_elsewhere_that_leads_into_dev_is_followed(
    fake_host: FakeHost, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "outside").symlink_to("/dev/null")
    pathlib.Path(fake_host.host.dev.path("null")).write_text("")
    assert nodes.real_node(fake_host.host, str(tmp_path / "outside")) == "/dev/null"


def test_a_node_that_is_no_link_is_told_by_its_number(
    fake_host: FakeHost, tmp_path: pathlib.Path
) -> None:
    dev = tmp_path / "dev"
    (dev / "mapper").mkdir(parents=True)
    try:
        os.mknod(dev / "mapper" / "mpatha", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make nodes")
    sys = Sysfs(tmp_path / "sys")
    sys.link("dev/block/1:3", "../../devices/virtual/block/dm-7")
    host = dataclasses.replace(fake_host.host, sysfs=Tree(str(sys.root)), dev=Tree(str(dev)))
    assert nodes.real_node(host, "/dev/mapper/mpatha") == "/dev/mapper/mpatha"
    assert nodes.kernel_name(host, "/dev/mapper/mpatha") == "dm-7"


def test_a_host_that_cannot_be_looked_at_is_an_error(fake_host: FakeHost) -> None:
    path = attach(fake_host)
    fake_host.faults.unreadable("dev/*")
    with pytest.raises(PermissionError):
        nodes.real_node(fake_host.host, path)


# -- read-only -------------------------------------------------------------------------------------
def set_read_only(fake_host: FakeHost, name: str, value: int) -> None:
    directory = pathlib.Path(fake_host.host.sysfs.path("block", name))
    (directory / "ro").write_text(f"{value}\n")


def test_a_volume_that_can_be_written_to_is_not_waited_for(fake_host: FakeHost, call: Call) -> None:
    path = attach(fake_host, portals=2)
    began = fake_host.now
    read_only.wait_until_writable(fake_host.host, call, name_of(path))
    assert fake_host.now == began
    assert fake_host.started == []
    assert fake_host.changes == []


@pytest.mark.parametrize("which", ["map", "first path", "second path"])
def test_one_device_that_is_read_only_makes_the_volume_so(fake_host: FakeHost, which: str) -> None:
    path = attach(fake_host, portals=2)
    names = {
        "map": name_of(path),
        "first path": fake_host.disks()[0].name,
        "second path": fake_host.disks()[1].name,
    }
    set_read_only(fake_host, names[which], 1)
    for name in names.values():
        assert read_only.read_only_devices(fake_host.host, name) == [names[which]]


def test_a_volume_that_becomes_writable_is_waited_for(fake_host: FakeHost, call: Call) -> None:
    path = attach(fake_host)
    set_read_only(fake_host, name_of(path), 1)
    fake_host.after(5, lambda: set_read_only(fake_host, name_of(path), 0))
    read_only.wait_until_writable(fake_host.host, call, name_of(path))
    assert {change.kind for change in fake_host.changes} == {"rescan"}


def test_a_volume_that_stays_read_only_is_an_error(
    fake_host: FakeHost, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    path = attach(fake_host)
    set_read_only(fake_host, name_of(path), 1)
    with pytest.raises(exception.BlockDeviceReadOnly, match=f"{path} is Read-Only"):
        read_only.wait_until_writable(fake_host.host, call, name_of(path))
    assert 10 < call.elapsed_s() < 20
    assert len([change for change in fake_host.changes if change.kind == "rescan"]) == 5
    assert "secondary side of a replication" in caplog.text


def test_a_map_alone_that_is_read_only_is_loaded_anew_and_no_other(
    fake_host: FakeHost, call: Call
) -> None:
    path = attach(fake_host, portals=2)
    set_read_only(fake_host, name_of(path), 1)
    fake_host.faults.fail("multipathd", "reload", code=0, out="ok\n", times=100)
    fake_host.after(3, lambda: set_read_only(fake_host, name_of(path), 0))
    read_only.wait_until_writable(fake_host.host, call, name_of(path))
    over = multipath.read_map(fake_host.host.sysfs, name_of(path))
    assert over is not None
    assert set(fake_host.started) == {("multipathd", "reload", "map", over.label)}
