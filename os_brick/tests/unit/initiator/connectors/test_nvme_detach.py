# SPDX-License-Identifier: Apache-2.0
"""Detaching NVMe-oF volumes."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.connectors.nvmeof import NVMeOFConnProps
from os_brick.testing import FakeHost
from os_brick.testing.device_mapper import MultipathMap
from os_brick.testing.nvme_storage import NvmeVolume
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side
from os_brick.tests.unit.initiator.connectors.nvme_helpers import (
    connector,
    controllers,
    kinds,
    while_it_writes_out,
)

FORCES = pytest.mark.parametrize("force", [False, True])


def attached(
    host: FakeHost, volume: NvmeVolume, *ids: str, **keywords: Any
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Attach a volume; return connector, properties and result."""
    one = connector(host, **keywords)
    host.remember()
    properties = volume.connection(*(ids or ("uuid",)))
    return one, properties, one.connect_volume(properties)


# -- what is written -----------------------------------------------------------------------
@FORCES
@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_data_is_on_the_storage_and_nothing_is_left(
    fake_host: FakeHost, force: bool, foreign: bool, native: bool
) -> None:
    """NV-42, NV-43."""
    fake_host.nvme.native_multipath = native
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one, properties, info = attached(fake_host, volume, foreign=foreign)
    fake_host.write(info["path"], b"data")
    one.disconnect_volume(json.loads(json.dumps(properties)), info, force=force)
    assert volume.data == b"data"
    assert fake_host.lost == []
    assert fake_host.leftovers() == []


def test_the_flush_is_an_fsync(fake_host: FakeHost) -> None:
    """BLKFLSBUF, what blockdev does, reports no error."""
    one, properties, info = attached(fake_host, fake_host.nvme_subsystem().namespace())
    fake_host.forget()
    one.disconnect_volume(properties, info)
    assert fake_host.started == [("sync", "/dev/nvme2n1")]


def test_a_failed_flush_stops_the_detach(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one, properties, info = attached(fake_host, volume)
    fake_host.write(info["path"], b"data")
    fake_host.faults.fail("sync", code=1, err="sync: error syncing: Input/output error")
    with pytest.raises(processutils.ProcessExecutionError):
        one.disconnect_volume(properties, info)
    assert len(fake_host.nvme.controllers) == 2
    one.disconnect_volume(properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("ignore", [False, True])
def test_with_force_a_failed_flush_is_told_at_the_end(fake_host: FakeHost, ignore: bool) -> None:
    """NV-44."""
    one, properties, info = attached(fake_host, fake_host.nvme_subsystem(portals=2).namespace())
    fake_host.faults.fail("sync", code=1)
    if ignore:
        one.disconnect_volume(properties, info, force=True, ignore_errors=True)
    else:
        with pytest.raises(exception.ExceptionChainer):
            one.disconnect_volume(properties, info, force=True)
    assert fake_host.leftovers() == []


@FORCES
def test_all_paths_down_with_dirty_data(fake_host: FakeHost, force: bool) -> None:
    """Never a silent loss, never a hang."""
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    one, properties, info = attached(fake_host, volume)
    fake_host.write(info["path"], b"data")
    for portal in subsystem.portals:
        portal.kill()
    began = fake_host.now
    if force:
        with pytest.raises(exception.ExceptionChainer):
            one.disconnect_volume(properties, info, force=True)
        assert fake_host.now - began < 30
        assert [loss.data for loss in fake_host.lost] == [b"data"]
        assert fake_host.leftovers() == []
    else:
        with pytest.raises(exception.ExecutionTimeout):
            one.disconnect_volume(properties, info)
        assert fake_host.lost == []
        for portal in subsystem.portals:
            portal.restore()
        fake_host.pass_time(30)
        one.disconnect_volume(properties, info)
        assert volume.data == b"data"
        assert fake_host.leftovers() == []


def test_one_path_down_does_not_keep_the_flush(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    one, properties, info = attached(fake_host, volume)
    fake_host.write(info["path"], b"data")
    subsystem.portals[0].kill()
    one.disconnect_volume(properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


# -- which device --------------------------------------------------------------------------
@pytest.mark.parametrize("ids", [("uuid",), ("nguid",), ("nsid",), ()])
@pytest.mark.parametrize("info", [None, {}, {"path": None}])
def test_without_a_path_the_identity_tells(
    fake_host: FakeHost, ids: tuple[str, ...], info: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Today the call does nothing and returns."""
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one = connector(fake_host)
    properties = volume.connection(*ids)
    path = one.connect_volume(properties)["path"]
    fake_host.write(path, b"data")
    one.disconnect_volume(properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []
    assert "without its device's path" in caplog.text


def test_a_path_that_is_another_volumes_by_now_is_not_touched(fake_host: FakeHost) -> None:
    """Names change with a reboot."""
    subsystem = fake_host.nvme_subsystem()
    volume, other = subsystem.namespace(), subsystem.namespace()
    one = connector(fake_host)
    info = one.connect_volume(volume.properties)
    kept = one.connect_volume(other.properties)
    fake_host.write(info["path"], b"mine")
    fake_host.write(kept["path"], b"other")
    one.disconnect_volume(volume.properties, {"path": kept["path"]})
    assert volume.data == b"mine"
    assert other.data == b""


def test_a_volume_without_identifier_that_is_gone_spares_the_only_other(
    fake_host: FakeHost,
) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace(1)
    one = connector(fake_host)
    properties = volume.connection()
    info = one.connect_volume(properties)
    volume.vanish()
    other = subsystem.namespace(2)
    fake_host.pass_time(1)
    fake_host.open("/dev/nvme2n1", exclusive=True)
    assert fake_host.device("/dev/nvme2n1").storage()[1] is other.unit
    one.disconnect_volume(properties, {"path": f"{info['path']}0"})
    assert controllers(fake_host) == ["nvme0"]


@FORCES
def test_a_node_that_is_gone_still_ends_the_connection(fake_host: FakeHost, force: bool) -> None:
    """The backend unmapped the volume first."""
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    one, properties, info = attached(fake_host, volume)
    volume.vanish()
    fake_host.pass_time(1)
    assert fake_host.devices.find(info["path"]) is None
    one.disconnect_volume(properties, info, force=force)
    assert fake_host.leftovers() == []


def test_what_is_not_here_is_detached(fake_host: FakeHost) -> None:
    """NV-41: after a reboot of the host."""
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    connector(fake_host).disconnect_volume(volume.properties, {"path": "/dev/nvme2n1"})
    assert fake_host.leftovers() == []
    assert not [words for words in fake_host.started if words[0] == "nvme"]


def test_a_detach_makes_no_identity(fake_host: FakeHost) -> None:
    fake_host.nvme_identity.files.clear()
    volume = fake_host.nvme_subsystem().namespace()
    connector(fake_host).disconnect_volume(volume.properties, None)
    assert fake_host.nvme_identity.files == {}


def test_hosts_that_cannot_be_told_apart_are_an_error(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    for nqn in ("nqn.one", "nqn.two"):
        fake_host.nvme.add(subsystem, 0, nqn, nqn)
    fake_host.nvme_identity.files.clear()
    with pytest.raises(exception.BrickException, match="hostnqn is missing"):
        connector(fake_host).disconnect_volume(volume.properties, None)
    assert len(fake_host.nvme.controllers) == 2


def test_a_host_that_cannot_be_read_is_an_error(fake_host: FakeHost) -> None:
    """Could not look is never nothing there."""
    one, properties, info = attached(fake_host, fake_host.nvme_subsystem().namespace())
    fake_host.faults.unreadable("sys/class/nvme-fabrics/ctl")
    with pytest.raises(OSError, match="ermission"):
        one.disconnect_volume(properties, info)
    fake_host.faults.mend()
    assert controllers(fake_host) == ["nvme0"]


# -- which controllers ---------------------------------------------------------------------
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("others", [0, 1, 2])
@pytest.mark.parametrize("mine", [False, True])
def test_a_controller_goes_only_with_its_last_namespace(
    fake_host: FakeHost, native: bool, others: int, mine: bool
) -> None:
    """NV-43: 0, 1 of ours, 1 of another, several."""
    fake_host.nvme.native_multipath = native
    subsystem = fake_host.nvme_subsystem(connected=True)
    fake_host.nvme.set_state(fake_host.nvme.controllers[0], "live")
    volume = subsystem.namespace(mapped=mine)
    for _ in range(others):
        subsystem.namespace()
    fake_host.pass_time(1)
    connector(fake_host).disconnect_volume(volume.properties, None)
    assert bool(fake_host.nvme.controllers) is bool(others)


def test_a_namespace_that_is_going_keeps_no_controller(fake_host: FakeHost) -> None:
    """The subsystem has taken the other one away but the kernel has not noticed: nobody would come
    back for the controller."""
    subsystem = fake_host.nvme_subsystem()
    volume, other = subsystem.namespace(), subsystem.namespace()
    one, properties, info = attached(fake_host, volume)
    subsystem.sends_events = False
    other.vanish()
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_a_subsystem_that_cannot_be_asked_keeps_its_controller(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    subsystem.namespace()
    one, properties, info = attached(fake_host, volume)
    fake_host.faults.failing_writes["identify"] = errno.EIO
    one.disconnect_volume(properties, info)
    assert controllers(fake_host) == ["nvme0"]


@pytest.mark.parametrize("said", ["", "garbage\n", '{ "nsid_list" : [ { "nsid" : 1 } ] }\n'])
def test_a_list_that_leaves_others_out_does_not_end_their_controller(
    fake_host: FakeHost, said: str
) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume, other = subsystem.namespace(), subsystem.namespace()
    one, properties, info = attached(fake_host, volume, foreign=True)
    fake_host.write(one.connect_volume(other.properties)["path"], b"other")
    fake_host.faults.fail("nvme", "list-ns", code=0, out=said, times=9)
    one.disconnect_volume(properties, info)
    assert controllers(fake_host) == ["nvme0"]
    assert fake_host.lost == []


@pytest.mark.parametrize("foreign", [False, True])
def test_a_subsystem_that_only_lists_is_believed(fake_host: FakeHost, foreign: bool) -> None:
    subsystem = fake_host.nvme_subsystem()
    subsystem.describes = False
    volume, other = subsystem.namespace(), subsystem.namespace()
    one, properties, info = attached(fake_host, volume, foreign=foreign)
    subsystem.sends_events = False
    other.vanish()
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_other_subsystems_and_hosts_are_not_disturbed(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    fake_host.nvme_subsystem(portals=2, connected=True).namespace()
    fake_host.nvme.add(subsystem, 0, "nqn.other-host", "other")
    fake_host.pass_time(1)
    before = controllers(fake_host)
    one, properties, info = attached(fake_host, volume)
    one.disconnect_volume(properties, info)
    assert controllers(fake_host) == before
    assert fake_host.leftovers() == []


def test_a_controller_through_which_somebody_attaches_is_left_to_him(fake_host: FakeHost) -> None:
    """NV-30, NV-45: the last one out disconnects."""
    subsystem = fake_host.nvme_subsystem()
    volume, coming = subsystem.namespace(), subsystem.namespace(mapped=False)
    one, properties, info = attached(fake_host, volume)
    results: list[Any] = []

    def attach() -> None:
        results.append(one.connect_volume(coming.properties))

    def detach() -> None:
        fake_host.pass_time(1)
        one.disconnect_volume(properties, info)
        fake_host.pass_time(1)
        coming.map()

    side_by_side(fake_host, attach, detach)
    assert controllers(fake_host) == ["nvme0"]
    one.disconnect_volume(coming.properties, results[0])
    for gone in (volume, coming):
        gone.vanish()
    fake_host.pass_time(1)
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


@FORCES
def test_a_disconnect_that_fails_is_told(fake_host: FakeHost, force: bool) -> None:
    """NV-44: one failure does not stop the others."""
    one, properties, info = attached(fake_host, fake_host.nvme_subsystem(portals=2).namespace())
    fake_host.faults.failing_writes["delete_controller"] = errno.EIO
    expected = exception.ExceptionChainer if force else exception.BrickException
    with pytest.raises(expected, match="was not disconnected"):
        one.disconnect_volume(properties, info, force=force)
    assert kinds(fake_host).count("delete_controller") == 2
    fake_host.faults.mend()
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("version", [(1, 3), (1, 16), (2, 3)])
def test_the_tools_word_for_a_disconnect_is_not_taken(
    fake_host: FakeHost, version: tuple[int, int]
) -> None:
    """nvme-cli 2.x ends with 0 when it failed: sysfs tells, and does it."""
    fake_host.nvme_cli.version = version
    volume = fake_host.nvme_subsystem().namespace()
    one, properties, info = attached(fake_host, volume, foreign=True)
    fake_host.faults.fail("nvme", "disconnect", code=0, err="Failed to disconnect nvme0")
    one.disconnect_volume(properties, info)
    assert any(words[0] == "tee" for words in fake_host.started)
    assert fake_host.leftovers() == []


# -- in use --------------------------------------------------------------------------------
def _mount(host: FakeHost, path: str) -> None:
    host.mount(path, "/srv/data")


def _map(host: FakeHost, path: str) -> None:
    host.put_on_top(path, "vg-lv")


def _partition(host: FakeHost, path: str) -> None:
    host.add_partition(path, 1)
    host.mount("/dev/nvme2n11", "/srv/part")


def _claim(host: FakeHost, path: str) -> None:
    host.open(path, exclusive=True)


@pytest.mark.parametrize("use", [_mount, _map, _partition, _claim])
def test_a_volume_in_use_is_not_detached(fake_host: FakeHost, use: Any) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one, properties, info = attached(fake_host, volume)
    use(fake_host, info["path"])
    with pytest.raises(exception.DeviceInUse, match="/dev/nvme2n1 is in use"):
        one.disconnect_volume(properties, info)
    assert len(fake_host.nvme.controllers) == 2


def test_somebody_who_only_looks_is_waited_for(fake_host: FakeHost) -> None:
    one, properties, info = attached(fake_host, fake_host.nvme_subsystem().namespace())
    opening = fake_host.open(info["path"], exclusive=True)
    fake_host.after(3, opening.close)
    one.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def _map_over(host: FakeHost, path: str) -> None:
    """Have multipathd make a map, as it does with find_multipaths no."""
    disk = host.device(path)
    host.mapper.create(MultipathMap, "mpatha", "mpath-eui.1", [disk], wwid="eui.1")


@FORCES
def test_a_map_of_multipathds_goes_too(fake_host: FakeHost, force: bool) -> None:
    """Without native multipath."""
    fake_host.nvme.native_multipath = False
    one, properties, info = attached(fake_host, fake_host.nvme_subsystem().namespace())
    _map_over(fake_host, info["path"])
    one.disconnect_volume(properties, info, force=force)
    assert fake_host.leftovers() == []


def test_a_map_in_use_keeps_the_volume(fake_host: FakeHost) -> None:
    fake_host.nvme.native_multipath = False
    one, properties, info = attached(fake_host, fake_host.nvme_subsystem().namespace())
    _map_over(fake_host, info["path"])
    fake_host.mount("/dev/dm-0", "/srv/data")
    with pytest.raises(exception.DeviceInUse, match="mounted at /srv/data"):
        one.disconnect_volume(properties, info)
    assert controllers(fake_host) == ["nvme0"]


@FORCES
def test_a_map_of_whom_has_the_disks_name_by_now_stays(fake_host: FakeHost, force: bool) -> None:
    fake_host.nvme.native_multipath = False
    subsystem = fake_host.nvme_subsystem()
    volume, neighbour = subsystem.namespace(1), subsystem.namespace(2)
    one = connector(fake_host)
    one.connect_volume(neighbour.properties)
    info = one.connect_volume(volume.properties)
    fake_host.write(info["path"], b"data")

    def map_next() -> None:
        _map_over(fake_host, info["path"])

    while_it_writes_out(fake_host, 5, volume.vanish, volume.remap, map_next)
    with pytest.raises((exception.BrickException, processutils.ProcessExecutionError)):
        one.disconnect_volume(volume.properties, info, force=force)
    assert fake_host.mapper.find("mpatha") is not None


# -- another volume by now -----------------------------------------------------------------
def test_with_force_the_controller_of_whom_has_the_name_by_now_stays(fake_host: FakeHost) -> None:
    """The volume has no identifier, so that its name tells it, as long as that is its own."""
    volume = fake_host.nvme_subsystem().namespace(1)
    one = connector(fake_host)
    nameless = dict(volume.properties)
    for key in ("vol_uuid", "volume_nguid", "ns_id"):
        nameless.pop(key, None)
    info = one.connect_volume(nameless)
    fake_host.write(info["path"], b"data")
    while_it_writes_out(fake_host, 5, volume.vanish, volume.remap)
    with pytest.raises(exception.ExceptionChainer, match="taken away"):
        one.disconnect_volume(nameless, info, force=True)
    assert controllers(fake_host) == ["nvme0"]


@FORCES
@pytest.mark.parametrize("foreign", [False, True])
def test_nothing_is_written_to_another_volume(
    fake_host: FakeHost, force: bool, foreign: bool
) -> None:
    subsystem = fake_host.nvme_subsystem()
    old = subsystem.namespace(1)
    one, properties, info = attached(fake_host, old, foreign=foreign)
    fake_host.write(info["path"], b"old")
    subsystem.sends_events = False
    new = old.remap()
    expected = exception.ExceptionChainer if force else exception.WrongVolume
    with pytest.raises(expected):
        one.disconnect_volume(properties, info, force=force)
    assert new.data == b""
    assert bool(fake_host.nvme.controllers) is not force


# -- paths ---------------------------------------------------------------------------------
def test_volume_paths(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    one = connector(fake_host)
    assert one.get_volume_paths(volume.properties) == []
    info = one.connect_volume(volume.properties)
    fake_host.forget()
    assert one.get_volume_paths(volume.properties) == [info["path"]]
    assert one.get_volume_paths(volume.properties, info) == [info["path"]]
    assert one.get_volume_paths(NVMeOFConnProps(volume.properties)) == [info["path"]]
    assert fake_host.journal == []
    assert one.get_search_path() == "/dev/"


# -- extend --------------------------------------------------------------------------------
@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("foreign", [False, True])
def test_the_new_size_is_returned_in_bytes(
    fake_host: FakeHost, block_size: int, events: bool, foreign: bool
) -> None:
    """NV-50; several formats are listed, the one in use counts."""
    subsystem = fake_host.nvme_subsystem(portals=2)
    subsystem.sends_events = events
    volume = subsystem.namespace(block_size=block_size)
    one, properties, _info = attached(fake_host, volume, foreign=foreign)
    began = fake_host.now
    volume.grow(5 * 1024**3)
    assert one.extend_volume(properties) == 5 * 1024**3
    assert fake_host.devices.get("/dev/nvme2n1").size == 5 * 1024**3
    assert fake_host.now - began < 1


def test_an_extend_without_growth_returns_the_size(fake_host: FakeHost) -> None:
    one, properties, _info = attached(fake_host, fake_host.nvme_subsystem().namespace())
    assert one.extend_volume(properties) == 1024**3


def test_a_size_that_does_not_show_is_an_error(fake_host: FakeHost) -> None:
    """An old size is never returned as if it were the new one."""
    subsystem = fake_host.nvme_subsystem()
    subsystem.sends_events = False
    volume = subsystem.namespace()
    one, properties, _info = attached(fake_host, volume)
    fake_host.faults.failing_writes["rescan_controller"] = errno.EIO
    volume.grow(2 * 1024**3)
    with pytest.raises(exception.BrickException, match=r"2147483648.*1073741824"):
        one.extend_volume(properties)


def test_a_subsystem_that_does_not_tell_the_size_is_watched(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    subsystem = fake_host.nvme_subsystem()
    subsystem.sends_events = False
    volume = subsystem.namespace()
    one, properties, _info = attached(fake_host, volume)
    fake_host.faults.failing_writes["identify"] = errno.EIO
    volume.grow(2 * 1024**3)
    assert one.extend_volume(properties) == 2 * 1024**3
    assert "does not tell the size" in caplog.text


def test_a_volume_that_is_not_here_cannot_be_extended(fake_host: FakeHost) -> None:
    """NV-51."""
    volume = fake_host.nvme_subsystem().namespace()
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector(fake_host).extend_volume(volume.properties)


def test_no_live_controller_is_an_error(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace()
    one, properties, _info = attached(fake_host, volume)
    subsystem.portals[0].kill()
    with pytest.raises(exception.VolumeDeviceNotFound, match="No controller"):
        one.extend_volume(properties)


def test_the_write_out_of_a_later_disk_of_the_name_is_not_ours(fake_host: FakeHost) -> None:
    """The number goes to another volume, and the kernel notices, while ``sync`` starts."""
    volume = fake_host.nvme_subsystem().namespace()
    one = connector(fake_host)
    info = one.connect_volume(volume.properties)
    fake_host.write(info["path"], b"data")
    while_it_writes_out(fake_host, 0.5, volume.vanish, volume.remap)
    with pytest.raises(processutils.ProcessExecutionError, match="taken away"):
        one.disconnect_volume(volume.properties, info)
    assert [loss.data for loss in fake_host.lost] == [b"data"]
