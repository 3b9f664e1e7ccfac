# SPDX-License-Identifier: Apache-2.0
"""LinuxSCSI, the SCSI helper that services and connectors outside this library know."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator import linuxscsi
from os_brick.initiator.linuxscsi import LinuxSCSI
from os_brick.testing import FakeHost
from os_brick.testing.storage import Volume

GIB = 1024**3


class Host:
    """A fake host with the helper on it, and with volumes attached by the connector."""

    def __init__(self, fake: FakeHost) -> None:
        self.fake = fake
        self.scsi = LinuxSCSI(None, host=fake.host)
        fake.multipathd.find_multipaths = "strict"

    def attach(self, portals: int = 1) -> tuple[Volume, str]:
        """Attach a new volume; return it and its path, with several portals that of a map."""
        volume = self.fake.iscsi_target(portals=portals).lun(1, size=GIB)
        connector = self.fake.connector("ISCSI", use_multipath=portals > 1)
        path = connector.connect_volume(volume.properties)["path"]
        self.fake.pass_time(1)
        self.fake.forget()
        return volume, path

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.fake.disks()]

    def kinds(self) -> list[str]:
        return [change.kind for change in self.fake.changes]


@pytest.fixture
def host(fake_host: FakeHost) -> Host:
    return Host(fake_host)


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


# -- names and numbers -----------------------------------------------------------------------------
def test_a_link_leads_to_its_device(host: Host) -> None:
    _volume, path = host.attach()
    (link,) = host.fake.host.dev.names("disk/by-path")
    assert host.scsi.get_name_from_path(f"/dev/disk/by-path/{link}") == path
    assert host.scsi.get_name_from_path(path) == path


@pytest.mark.parametrize("path", ["/dev/gone", "/etc/passwd", ""])
def test_what_is_no_device_has_no_name(host: Host, path: str) -> None:
    assert host.scsi.get_name_from_path(path) is None


@pytest.mark.parametrize("form", ["{}", "/dev/{}"])
def test_a_disks_address_is_told_in_words(host: Host, form: str) -> None:
    host.attach()
    device = form.format(host.names[0])
    assert host.scsi.get_device_info(device) == {
        "device": device,
        "host": "2",
        "channel": "0",
        "id": "0",
        "lun": "1",
    }
    assert host.fake.started == []


@pytest.mark.parametrize("device", ["/dev/sdz", "sdz", "/dev/dm-0"])
def test_what_is_no_scsi_disk_has_no_address(host: Host, device: str) -> None:
    nothing = dict.fromkeys(("host", "channel", "id", "lun"))
    assert host.scsi.get_device_info(device) == {"device": device, **nothing}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (255, 255),
        ("255", 255),
        (256, "0x0100000000000000"),
        ("256", "0x0100000000000000"),
        (65536, "0x0000000100000000"),
        (16640, "0x4100000000000000"),
        ([2, "255", 88, 370, 5, 256], [2, 255, 88, "0x0172000000000000", 5, "0x0100000000000000"]),
        ((1, 2), [1, 2]),
        ([], []),
    ],
)
def test_luns_are_spelt_as_udev_does(host: Host, given: Any, expected: Any) -> None:
    assert host.scsi.process_lun_id(given) == expected


@pytest.mark.parametrize("given", [-1, "x", [1, None]])
def test_what_is_no_lun_is_refused(host: Host, given: Any) -> None:
    with pytest.raises(exception.InvalidParameterValue):
        host.scsi.process_lun_id(given)


def test_luns_are_coded_as_the_array_does() -> None:
    assert LinuxSCSI.lun_for_addressing(256) == 256
    assert LinuxSCSI.lun_for_addressing(256, "SAM2") == 16640
    with pytest.raises(exception.InvalidParameterValue, match="Invalid addressing_mode no"):
        LinuxSCSI.lun_for_addressing(1, "no")


def test_a_size_is_asked_of_blockdev() -> None:
    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        assert words == ("blockdev", "--getsize64", "/dev/sda")
        assert keywords["run_as_root"] is True
        assert keywords["root_helper"] == "sudo"
        return "1073741824\n", ""

    assert LinuxSCSI("sudo", execute).get_device_size("/dev/sda") == GIB


# -- identity --------------------------------------------------------------------------------------
@pytest.mark.parametrize("portals", [1, 2])
def test_a_volume_is_called_by_its_identity(host: Host, portals: int) -> None:
    volume, path = host.attach(portals)
    assert host.scsi.get_scsi_wwn(path) == volume.wwid
    assert host.scsi.get_scsi_wwn(f"/dev/{host.names[0]}") == volume.wwid
    assert host.scsi.get_sysfs_wwid(host.names) == volume.wwid
    assert host.scsi.get_sysfs_wwn(host.names) == volume.wwid
    if portals > 1:
        assert host.scsi.get_sysfs_wwn(host.names, name_of(path)) == volume.wwid
    assert host.fake.started == []


def test_what_is_not_there_has_no_identity(host: Host) -> None:
    assert host.scsi.get_scsi_wwn("/dev/sdz") == ""
    assert host.scsi.get_sysfs_wwid(["sdz"]) == ""
    assert host.scsi.get_sysfs_wwn(["sdz"], "dm-9") == ""


# -- scanning --------------------------------------------------------------------------------------
def test_text_is_written_as_it_is() -> None:
    seen: list[tuple[tuple[str, ...], Any]] = []

    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        seen.append((words, keywords["process_input"]))
        return "", ""

    LinuxSCSI("sudo", execute).echo_scsi_command("/sys/class/scsi_host/host3/scan", "- - 7")
    assert seen == [(("tee", "-a", "/sys/class/scsi_host/host3/scan"), "- - 7")]


def test_a_write_that_fails_is_an_error(host: Host) -> None:
    host.fake.faults.fail("tee", err="Permission denied")
    with pytest.raises(processutils.ProcessExecutionError, match="Permission denied"):
        host.scsi.echo_scsi_command("/sys/class/scsi_host/host2/scan", "- - 7")


def test_a_session_and_a_lun_are_an_address(host: Host) -> None:
    host.attach()
    assert host.scsi.get_hctl(1, 7) == ("2", "0", "0", 7)
    assert host.scsi.get_hctl("1", "7") == ("2", "0", "0", "7")
    assert host.scsi.get_hctl(9, 7) is None


def test_a_session_without_luns_has_no_channel_yet(host: Host) -> None:
    host.attach()
    host.scsi.remove_scsi_device(f"/dev/{host.names[0]}")
    host.fake.pass_time(1)
    assert host.scsi.get_hctl(1, 7) == ("2", "-", "-", 7)


@pytest.mark.parametrize(
    "hctl", [("2", "0", "0", 1), (2, 0, 0, "1"), ("2", "-", "-", 1), ("-", "-", "-", 16385)]
)
def test_an_address_of_a_session_is_a_disk(host: Host, hctl: tuple[Any, ...]) -> None:
    host.attach()
    assert host.scsi.device_name_by_hctl(1, hctl) == host.names[0]


@pytest.mark.parametrize("hctl", [("2", "0", "0", 2), ("3", "0", "0", 1), ("2", "1", "-", 1)])
def test_another_address_is_none(host: Host, hctl: tuple[Any, ...]) -> None:
    host.attach()
    assert host.scsi.device_name_by_hctl(1, hctl) is None
    assert host.scsi.device_name_by_hctl(9, ("2", "0", "0", 1)) is None


def test_a_scan_finds_one_lun(host: Host) -> None:
    volume, _path = host.attach()
    volume.target.lun(2)
    volume.target.lun(3)
    host.scsi.scan_iscsi("2", "0", "0", 2)
    host.fake.pass_time(1)
    assert len(host.names) == 2
    host.scsi.scan_iscsi(2, lun="3")
    host.fake.pass_time(1)
    assert len(host.names) == 3


def test_a_scan_for_everything_finds_everything(host: Host) -> None:
    volume, _path = host.attach()
    volume.target.lun(2)
    volume.target.lun(3)
    host.scsi.scan_iscsi(2)
    host.fake.pass_time(1)
    assert len(host.names) == 3


# -- removing a disk -------------------------------------------------------------------------------
def test_a_disk_is_written_out_and_removed(host: Host) -> None:
    volume, path = host.attach()
    host.fake.write(path, b"data")
    host.scsi.remove_scsi_device(path)
    assert host.names == []
    assert volume.data == b"data"
    assert host.fake.lost == []


def test_a_disk_is_removed_without_being_written_out_where_that_is_asked(host: Host) -> None:
    _volume, path = host.attach()
    host.scsi.remove_scsi_device(path, flush=False)
    assert host.names == []
    assert host.fake.started == []


def test_a_disk_that_is_gone_is_no_error(host: Host) -> None:
    host.scsi.remove_scsi_device("/dev/sdz")
    assert host.fake.started == []
    assert host.fake.changes == []


def lose_the_way(host: Host, volume: Volume) -> None:
    for portal in volume.target.portals:
        portal.kill()
    host.fake.pass_time(130)


def test_a_disk_whose_data_cannot_be_written_out_stays(host: Host) -> None:
    volume, path = host.attach()
    host.fake.write(path, b"data")
    lose_the_way(host, volume)
    with pytest.raises(processutils.ProcessExecutionError):
        host.scsi.remove_scsi_device(path)
    assert host.names == [name_of(path)]
    assert "delete" not in host.kinds()


def test_a_disk_is_removed_by_force_and_the_loss_is_told(host: Host) -> None:
    volume, path = host.attach()
    host.fake.write(path, b"data")
    lose_the_way(host, volume)
    errors = exception.ExceptionChainer()
    host.scsi.remove_scsi_device(path, force=True, exc=errors)
    assert host.names == []
    assert errors
    assert len(host.fake.lost) == 1


def test_a_disk_in_use_stays(host: Host) -> None:
    _volume, path = host.attach()
    host.fake.mount(path, "/mnt")
    with pytest.raises(exception.DeviceInUse, match="mounted at /mnt"):
        host.scsi.remove_scsi_device(path)
    assert host.names == [name_of(path)]


def test_a_path_of_a_map_is_not_taken_from_under_it(host: Host) -> None:
    host.attach(portals=2)
    with pytest.raises(exception.DeviceInUse):
        host.scsi.remove_scsi_device(f"/dev/{host.names[0]}")
    assert len(host.names) == 2


# -- removing a volume -----------------------------------------------------------------------------
@pytest.mark.parametrize("portals", [1, 2])
def test_a_volume_is_written_out_and_removed(host: Host, portals: int) -> None:
    volume, path = host.attach(portals)
    host.fake.write(path, b"data")
    assert host.scsi.remove_connection(set(host.names), path_used=path) is None
    host.fake.pass_time(1)
    assert host.names == []
    assert volume.data == b"data"
    assert not [one for one in host.fake.host.dev.names("disk/by-id") if one.startswith("scsi-")]


@pytest.mark.parametrize("keywords", [{}, {"is_multipath": True}, {"was_multipath": True}])
def test_what_the_caller_thinks_about_maps_does_not_matter(
    host: Host, keywords: dict[str, Any]
) -> None:
    volume, path = host.attach(portals=2)
    host.fake.write(path, b"data")
    assert host.scsi.remove_connection(host.names, **keywords) is None
    assert volume.data == b"data"
    assert host.names == []


def test_no_disk_is_nothing_to_remove(host: Host) -> None:
    host.attach()
    assert host.scsi.remove_connection([]) is None
    assert host.scsi.remove_connection(["sdz"]) is None
    assert host.fake.started == []
    assert host.fake.changes == []


def test_a_map_that_cannot_be_written_out_stays_with_all_its_paths(host: Host) -> None:
    volume, path = host.attach(portals=2)
    host.fake.write(path, b"data")
    lose_the_way(host, volume)
    with pytest.raises(processutils.ProcessExecutionError):
        host.scsi.remove_connection(host.names, path_used=path)
    assert len(host.names) == 2
    assert "delete" not in host.kinds()
    assert host.scsi.find_sysfs_multipath_dm(host.names) == name_of(path)


@pytest.mark.parametrize("retry", ["fail", "queue"])
def test_by_force_the_map_that_could_not_be_written_out_is_named(host: Host, retry: str) -> None:
    host.fake.multipathd.no_path_retry = retry
    host.fake.multipathd.user_friendly_names = True
    volume, path = host.attach(portals=2)
    host.fake.write(path, b"data")
    lose_the_way(host, volume)
    errors = exception.ExceptionChainer()
    began = host.fake.now
    assert host.scsi.remove_connection(host.names, True, errors, path, True) == "mpatha"
    assert errors
    assert host.names == []
    assert host.fake.multipathd.maps() == []
    assert host.fake.now - began < 600


def test_a_volume_in_use_stays(host: Host) -> None:
    _volume, path = host.attach(portals=2)
    host.fake.mount(path, "/mnt")
    with pytest.raises(exception.DeviceInUse, match="mounted at /mnt"):
        host.scsi.remove_connection(host.names, path_used=path)
    assert len(host.names) == 2


# -- waiting for the end ---------------------------------------------------------------------------
def test_disks_that_go_late_are_waited_for_and_their_links_removed(host: Host) -> None:
    _volume, path = host.attach()
    device = host.fake.disks()[0].device
    assert device is not None
    host.fake.udev.forgets_links = True
    host.fake.after(29, lambda: host.fake.scsi.drop(device))
    host.scsi.wait_for_volumes_removal([name_of(path)])
    host.fake.pass_time(1)
    assert not [one for one in host.fake.host.dev.names("disk/by-id") if one.startswith("scsi-")]


def test_a_disk_that_stays_is_an_error(host: Host) -> None:
    _volume, path = host.attach()
    with pytest.raises(
        exception.VolumePathNotRemoved, match=f"Volume path {path} was not removed in time"
    ):
        host.scsi.wait_for_volumes_removal([path])


def test_disks_that_are_gone_are_not_waited_for(host: Host) -> None:
    began = host.fake.now
    host.scsi.wait_for_volumes_removal(["sdy", "sdz"])
    host.scsi.wait_for_volumes_removal([])
    assert host.fake.now == began


def test_a_link_to_a_device_that_is_there_stays(host: Host) -> None:
    host.attach()
    before = host.fake.host.dev.names("disk/by-id")
    host.scsi.wait_for_volumes_removal(["sdz"])
    assert host.fake.host.dev.names("disk/by-id") == before


# -- the rule of old, by which single paths are written out ----------------------------------------
@pytest.fixture
def real_nodes(tmp_path: pathlib.Path) -> dict[str, str]:
    (tmp_path / "mapper").mkdir()
    (tmp_path / "mapper" / "crypt").write_text("")
    (tmp_path / "link").symlink_to("/dev/null")
    return {
        "null": "/dev/null",
        "zero": "/dev/zero",
        "link": str(tmp_path / "link"),
        "crypt": str(tmp_path / "mapper" / "crypt"),
        "empty": "",
    }


@pytest.mark.parametrize(
    ("used", "was_multipath", "expected"),
    [
        ("empty", False, False),
        ("empty", True, False),
        ("null", False, True),
        ("null", True, True),
        ("link", False, True),
        ("link", True, True),
        ("crypt", False, True),
        ("crypt", True, False),
        ("zero", False, False),
        ("zero", True, False),
    ],
)
def test_the_table_of_requires_flush(
    real_nodes: dict[str, str], used: str, was_multipath: bool, expected: bool
) -> None:
    for path in ("/dev/null", real_nodes["link"]):
        assert LinuxSCSI.requires_flush(path, real_nodes[used], was_multipath) is expected
    assert LinuxSCSI.requires_flush("/dev/null", None, was_multipath) is False


# -- write-out -------------------------------------------------------------------------------------
def test_a_device_is_written_out(host: Host) -> None:
    volume, path = host.attach()
    host.fake.write(path, b"data")
    host.scsi.flush_device_io(path)
    assert volume.data == b"data"
    host.scsi.flush_device_io("/dev/sdz")


def test_a_write_out_that_fails_is_tried_once(host: Host) -> None:
    volume, path = host.attach()
    host.fake.write(path, b"data")
    lose_the_way(host, volume)
    with pytest.raises(processutils.ProcessExecutionError):
        host.scsi.flush_device_io(path)
    assert host.fake.started == [("sync", path)]


@pytest.mark.parametrize("friendly", [True, False])
@pytest.mark.parametrize("by", ["name", "wwid", "path"])
def test_a_map_is_written_out_and_removed_by_whatever_names_it(
    host: Host, friendly: bool, by: str
) -> None:
    host.fake.multipathd.user_friendly_names = friendly
    volume, path = host.attach(portals=2)
    host.fake.write(path, b"data")
    names = {"name": "mpatha" if friendly else volume.wwid, "wwid": volume.wwid, "path": path}
    host.scsi.flush_multipath_device(names[by])
    assert volume.data == b"data"
    assert host.fake.multipathd.maps() == []
    assert len(host.names) == 2


def test_a_map_that_is_gone_needs_no_removal(host: Host) -> None:
    host.scsi.flush_multipath_device("mpathz")
    assert host.fake.started == []


def test_a_map_in_use_is_not_removed(host: Host) -> None:
    _volume, path = host.attach(portals=2)
    host.fake.mount(path, "/mnt")
    with pytest.raises(exception.DeviceInUse, match="/mnt"):
        host.scsi.flush_multipath_device(path)
    assert len(host.fake.multipathd.maps()) == 1


# -- waiting ---------------------------------------------------------------------------------------
def test_a_path_that_comes_is_waited_for(host: Host) -> None:
    host.fake.delays.udev_s = 2.0
    volume = host.fake.iscsi_target().lun(1)
    host.fake.connector("ISCSI").connect_volume(volume.properties)
    link = f"/dev/disk/by-id/scsi-{volume.wwid}"
    assert host.scsi.get_name_from_path(link) is None
    host.scsi.wait_for_path(link)
    assert host.scsi.get_name_from_path(link) == f"/dev/{host.names[0]}"


def test_a_path_that_does_not_come_is_an_error(host: Host) -> None:
    began = host.fake.now
    with pytest.raises(exception.VolumeDeviceNotFound, match="not found at /dev/sdz"):
        host.scsi.wait_for_path("/dev/sdz")
    assert host.fake.now - began <= 10


def test_a_volume_that_can_be_written_to_is_not_waited_for(host: Host) -> None:
    volume, path = host.attach(portals=2)
    host.scsi.wait_for_rw(volume.wwid, path)
    host.scsi.wait_for_rw(volume.wwid, "/dev/not-there-yet")
    host.scsi.wait_for_rw("3unknown", "/dev/not-there-yet")
    assert host.fake.started == []


@pytest.mark.parametrize("by_path", [True, False])
def test_a_volume_that_stays_read_only_is_an_error(host: Host, by_path: bool) -> None:
    volume, path = host.attach(portals=2)
    ro = pathlib.Path(host.fake.host.sysfs.path("block", host.names[1], "ro"))
    ro.write_text("1\n")
    with pytest.raises(exception.BlockDeviceReadOnly, match="is Read-Only"):
        host.scsi.wait_for_rw(volume.wwid, path if by_path else "/dev/not-there-yet")
    assert ("multipath", "-r") not in host.fake.started


def test_a_map_that_is_usable_is_asked_about_once(host: Host) -> None:
    _volume, path = host.attach(portals=2)
    host.scsi.wait_for_mpath_device(name_of(path))
    assert host.fake.started == [("multipath", "-C", name_of(path))]


def test_a_map_that_becomes_usable_is_asked_about_again(host: Host) -> None:
    _volume, path = host.attach(portals=2)
    host.fake.faults.fail("multipath", "-C", times=2)
    host.scsi.wait_for_mpath_device(name_of(path))
    assert len(host.fake.started) == 3


def test_a_map_that_stays_unusable_is_an_error(host: Host) -> None:
    _volume, path = host.attach(portals=2)
    host.fake.faults.fail("multipath", "-C", times=100)
    with pytest.raises(processutils.ProcessExecutionError):
        host.scsi.wait_for_mpath_device(name_of(path))
    assert len(host.fake.started) == 4


def test_a_map_that_is_not_there_is_not_asked_about(host: Host) -> None:
    with pytest.raises(exception.VolumeDeviceNotFound):
        host.scsi.wait_for_mpath_device("dm-9")
    assert host.fake.started == []


# -- is multipathd there ---------------------------------------------------------------------------
def test_multipathd_that_answers_is_running(host: Host) -> None:
    assert LinuxSCSI.is_multipath_running(root_helper=None, execute=host.fake.execute) is True
    assert LinuxSCSI.is_multipath_running(None, host.fake.execute) is True
    host.fake.multipathd.stop()
    assert LinuxSCSI.is_multipath_running(root_helper=None, execute=host.fake.execute) is False


def test_an_old_client_that_fails_with_code_0_is_no_answer(host: Host) -> None:
    host.fake.faults.fail("multipathd", "show", code=0, out="error receiving packet\n")
    assert LinuxSCSI.is_multipath_running(None, host.fake.execute) is False


def test_the_root_helper_goes_with_the_question() -> None:
    seen: list[tuple[tuple[str, ...], Any, Any]] = []

    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        seen.append((words, keywords["run_as_root"], keywords["root_helper"]))
        return "path checker states:\n", ""

    assert LinuxSCSI.is_multipath_running(root_helper="sudo", execute=execute) is True
    assert seen == [(("multipathd", "show", "status"), True, "sudo")]


def test_a_client_that_is_not_installed_is_no_answer() -> None:
    def execute(*words: str, **keywords: Any) -> tuple[str, str]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), words[0])

    assert LinuxSCSI.is_multipath_running(None, execute) is False


def test_the_form_of_2017_enforces(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    running = LinuxSCSI.is_multipath_running
    execute = host.fake.execute
    assert running(enforce_multipath=True, root_helper=None, execute=execute) is True
    host.fake.multipathd.stop()
    assert running(enforce_multipath=False, root_helper=None, execute=execute) is False
    assert "not running" not in caplog.text
    with pytest.raises(processutils.ProcessExecutionError):
        running(enforce_multipath=True, root_helper=None, execute=execute)
    assert "multipathd is not running: exit code 1" in caplog.text


# -- finding maps ----------------------------------------------------------------------------------
def test_a_map_is_told_from_other_mappings_by_its_disks(host: Host) -> None:
    _volume, path = host.attach(portals=2)
    assert host.scsi.find_sysfs_multipath_dm(["sdz", *host.names]) == name_of(path)
    host.fake.put_on_top(path, "vg-volume")
    assert host.scsi.find_sysfs_multipath_dm([name_of(path)]) is None
    assert host.scsi.find_sysfs_multipath_dm([]) is None


def test_a_map_has_a_name_for_the_tools(host: Host) -> None:
    host.fake.multipathd.user_friendly_names = True
    _volume, path = host.attach(portals=2)
    assert host.scsi.get_dm_name(name_of(path)) == "mpatha"
    assert host.scsi.get_dm_name("dm-9") == ""
    host.fake.faults.unreadable("sys/block/*/dm/name")
    assert host.scsi.get_dm_name(name_of(path)) == ""


def test_a_map_has_a_path_by_its_wwid(host: Host) -> None:
    volume, _path = host.attach(portals=2)
    expected = f"/dev/disk/by-id/dm-uuid-mpath-{volume.wwid}"
    assert host.scsi.find_multipath_device_path(volume.wwid) == expected


def test_a_map_that_does_not_come_has_none(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    assert host.scsi.find_multipath_device_path("3unknown") is None
    assert "3unknown" in caplog.text


@pytest.mark.parametrize("friendly", [True, False])
def test_a_map_is_described_as_multipath_lists_it(host: Host, friendly: bool) -> None:
    host.fake.multipathd.user_friendly_names = friendly
    volume, _path = host.attach(portals=2)
    found = host.scsi.find_multipath_device(f"/dev/{host.names[0]}")
    name = "mpatha" if friendly else volume.wwid
    assert found is not None
    devices = found.pop("devices")
    assert found == {"device": f"/dev/mapper/{name}", "id": volume.wwid, "name": name}
    for device in devices:
        assert device == host.scsi.get_device_info(device["device"])
    assert sorted(device["device"] for device in devices) == [f"/dev/{one}" for one in host.names]


def test_a_device_without_a_map_is_not_described(host: Host) -> None:
    _volume, path = host.attach()
    assert host.scsi.find_multipath_device(path) is None


def test_a_listing_that_fails_is_an_error(host: Host) -> None:
    host.fake.faults.fail("multipath", "-l")
    with pytest.raises(
        exception.CommandExecutionFailed, match="Failed to execute command multipath -l /dev/sda"
    ):
        host.scsi.find_multipath_device("/dev/sda")


# -- asking multipathd -----------------------------------------------------------------------------
def test_a_wwid_is_remembered(host: Host) -> None:
    assert host.scsi.multipath_add_wwid("36001405abc") is True
    assert "36001405abc" in host.fake.multipathd.wwids
    host.fake.faults.fail("multipath", "-a")
    assert host.scsi.multipath_add_wwid("36001405abd") is False


def test_a_path_is_added_and_taken_away(host: Host) -> None:
    _volume, path = host.attach()
    assert host.scsi.multipath_add_path(path) is True
    assert host.scsi.multipath_del_path(path) is True
    assert host.fake.multipathd.paths == []
    host.fake.multipathd.blacklist = True
    assert host.scsi.multipath_add_path(path) is False
    assert host.scsi.multipath_add_path("/dev/sdz") is False
    assert host.scsi.multipath_del_path("/dev/sdz") is False


@pytest.mark.parametrize("by", ["name", "kernel name", "path"])
def test_a_map_is_dropped_without_being_written_out(host: Host, by: str) -> None:
    host.fake.multipathd.user_friendly_names = True
    _volume, path = host.attach(portals=2)
    names = {"name": "mpatha", "kernel name": name_of(path), "path": path}
    host.scsi.multipath_del_map(names[by])
    assert host.fake.multipathd.maps() == []
    host.scsi.multipath_del_map(names[by])


def test_all_paths_are_shown_in_a_format_of_the_callers(host: Host) -> None:
    host.attach(portals=2)
    shown = host.scsi.multipath_show_paths("%d %i")
    assert {line.split()[0] for line in shown.splitlines()} == set(host.names)
    host.fake.multipathd.stop()
    assert host.scsi.multipath_show_paths("%d") == ""


def test_reconfiguring_is_done_only_where_it_is_asked_for(host: Host) -> None:
    assert host.scsi.multipath_reconfigure() == "ok\n"
    assert host.fake.started == [("multipathd", "reconfigure")]
    host.fake.multipathd.stop()
    with pytest.raises(processutils.ProcessExecutionError):
        host.scsi.multipath_reconfigure()


@pytest.mark.parametrize("by", ["path", "name", "wwid"])
def test_a_map_is_resized_by_whatever_names_it(host: Host, by: str) -> None:
    host.fake.multipathd.user_friendly_names = True
    volume, path = host.attach(portals=2)
    names = {"path": path, "name": "mpatha", "wwid": volume.wwid}
    host.scsi.multipath_resize_map(names[by])
    assert host.fake.started == [("multipathd", "resize", "map", path)]


def test_a_resize_that_fails_is_an_error_and_a_busy_daemon_is_asked_again(host: Host) -> None:
    _volume, path = host.attach(portals=2)
    host.fake.faults.fail("multipathd", "resize", code=0, out="timeout\n", times=3)
    host.scsi.multipath_resize_map(path)
    assert len(host.fake.started) == 4
    host.fake.faults.fail("multipathd", "resize", code=1, out="fail\n")
    with pytest.raises(processutils.ProcessExecutionError):
        host.scsi.multipath_resize_map(path)
    with pytest.raises(exception.VolumeDeviceNotFound):
        host.scsi.multipath_resize_map("/dev/dm-9")
    assert linuxscsi.MULTIPATHD_RESIZE_TIMEOUT == 120


def test_paths_that_multipathd_keeps_are_taken_from_it(host: Host) -> None:
    _volume, path = host.attach()
    host.fake.multipathd.consider(host.fake.disks()[0])
    host.fake.delays.multipath_drop_s = 10**6
    host.scsi.remove_scsi_device(path)
    host.fake.pass_time(1)
    assert [one.name for one in host.fake.multipathd.paths] == [name_of(path)]
    host.scsi.wait_multipathd_remove_paths([name_of(path)])
    assert host.fake.multipathd.paths == []


def test_paths_that_multipathd_does_not_give_away_are_an_error(host: Host) -> None:
    _volume, path = host.attach()
    host.fake.delays.multipath_drop_s = 10**6
    host.fake.multipathd.consider(host.fake.disks()[0])
    host.scsi.remove_scsi_device(path)
    host.fake.faults.fail("multipathd", "del", "path", out="fail\n", times=100)
    with pytest.raises(exception.MultipathdPathsNotRemoved, match=name_of(path)):
        host.scsi.wait_multipathd_remove_paths([path])


def test_a_name_that_is_a_disks_again_is_left_to_it(host: Host) -> None:
    _volume, path = host.attach()
    host.fake.multipathd.consider(host.fake.disks()[0])
    host.scsi.wait_multipathd_remove_paths([name_of(path)])
    assert [one.name for one in host.fake.multipathd.paths] == [name_of(path)]
    assert not [words for words in host.fake.started if "del" in words]


def test_without_multipathd_there_is_nothing_to_wait_for(host: Host) -> None:
    host.fake.multipathd.stop()
    host.scsi.wait_multipathd_remove_paths(["sda"])


# -- extending -------------------------------------------------------------------------------------
@pytest.mark.parametrize("portals", [1, 2])
@pytest.mark.parametrize("use_multipath", [True, False])
def test_a_volume_is_extended(host: Host, portals: int, use_multipath: bool) -> None:
    volume, path = host.attach(portals)
    volume.grow(2 * GIB)
    links = [f"/dev/disk/by-path/{link}" for link in host.fake.host.dev.names("disk/by-path")]
    assert host.scsi.extend_volume(links, use_multipath) == 2 * GIB
    size = host.fake.host.sysfs.number("block", name_of(path), "size")
    assert size == 2 * GIB // 512


def test_no_path_is_no_size(host: Host) -> None:
    assert host.scsi.extend_volume([]) is None


def test_not_all_paths_up_is_an_error(host: Host) -> None:
    volume, path = host.attach()
    lose_the_way(host, volume)
    with pytest.raises(
        exception.BrickException, match="All paths need to be up to extend the device"
    ):
        host.scsi.extend_volume([path])


# -- whose programs --------------------------------------------------------------------------------
def test_a_replaced_execute_function_runs_everything_from_then_on(host: Host) -> None:
    _volume, path = host.attach()
    seen: list[str] = []

    def execute(*words: str, **keywords: Any) -> Any:
        seen.append(words[0])
        assert keywords["root_helper"] == "sudo"
        return host.fake.execute(*words, **keywords)

    host.scsi.set_execute(execute)
    host.scsi.set_root_helper("sudo")
    host.scsi.remove_scsi_device(path)
    host.fake.pass_time(1)
    assert host.names == []
    # Asked who it is, before anything is written to it.
    assert seen == ["/lib/udev/scsi_id", "sync", "tee"]


def test_the_helper_knows_udevs_kinds_of_identity() -> None:
    assert LinuxSCSI.WWN_TYPES == {"t10.": "1", "eui.": "2", "naa.": "3"}
