# SPDX-License-Identifier: Apache-2.0
"""Written data on a fake host: when it reaches the storage, and when it is lost."""

from __future__ import annotations

import errno

import pytest

from os_brick import exception
from os_brick.initiator.linux import block
from os_brick.initiator.linux.scsi import Hctl, read_disk
from os_brick.testing import FakeHost
from os_brick.testing.storage import Volume
from os_brick.tests.unit.testing.helpers import new_call, run, session_to


@pytest.fixture
def volume(fake_host: FakeHost) -> Volume:
    """A volume on one path, without a map."""
    fake_host.multipathd.stop()
    made = fake_host.iscsi_target().lun(1)
    session_to(fake_host, made.target)
    fake_host.pass_time(1)
    return made


def delete(host: FakeHost) -> None:
    disk = read_disk(host.host.sysfs, Hctl(2, 0, 0, 1))
    assert disk is not None
    host.host.changes.delete(new_call(host), disk)


def test_sync_brings_data_to_the_storage(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.write("/dev/sda", b"hello")
    assert volume.data == b""
    assert not block.was_written(fake_host.host.sysfs, "sda")
    assert run(fake_host, "sync /dev/sda")[0] == 0
    assert volume.data == b"hello"
    assert block.was_written(fake_host.host.sysfs, "sda")
    delete(fake_host)
    assert fake_host.lost == []


def test_data_of_a_deleted_disk_is_lost(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.write("/dev/sda", b"hello")
    delete(fake_host)
    assert [(one.device, one.data) for one in fake_host.lost] == [("sda", b"hello")]


def test_the_last_close_writes_out(fake_host: FakeHost, volume: Volume) -> None:
    with fake_host.open("/dev/sda") as first:
        with fake_host.open("/dev/sda") as second:
            second.write(b"hello")
        assert volume.data == b""
        first.write(b"!")
    assert volume.data == b"hello!"


def test_sync_of_a_dead_path_fails_and_can_be_tried_again(
    fake_host: FakeHost, volume: Volume
) -> None:
    fake_host.write("/dev/sda", b"hello")
    volume.target.portals[0].kill()
    code, _out, err = run(fake_host, "sync /dev/sda")
    assert (code, "Input/output error" in err) == (1, True)
    volume.target.portals[0].restore()
    assert run(fake_host, "sync /dev/sda")[0] == 0
    assert volume.data == b"hello"


def test_a_stopped_sync_keeps_the_device_open_until_its_io_has_ended(
    fake_host: FakeHost, volume: Volume
) -> None:
    fake_host.write("/dev/sda", b"hello")
    volume.target.portals[0].kill(recovery_s=1000)
    with pytest.raises(exception.ExecutionTimeout):
        fake_host.execute("sync", "/dev/sda", timeout=30)
    assert fake_host.device("/dev/sda").openers == 1
    volume.target.portals[0].restore()
    assert fake_host.device("/dev/sda").openers == 0
    assert volume.data == b"hello"


def test_sync_that_hangs_ends_when_the_path_is_back(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.write("/dev/sda", b"hello")
    volume.target.portals[0].kill(recovery_s=1000)
    fake_host.after(40, volume.target.portals[0].restore)
    began = fake_host.now
    assert run(fake_host, "sync /dev/sda")[0] == 0
    assert fake_host.now - began == pytest.approx(40, abs=1)


def test_a_stale_device_writes_to_whatever_has_its_lun(fake_host: FakeHost, volume: Volume) -> None:
    other = volume.remap()
    fake_host.write("/dev/sda", b"oops")
    run(fake_host, "sync /dev/sda")
    assert (volume.data, other.data) == (b"", b"oops")


def test_an_exclusive_opener_claims_the_device(fake_host: FakeHost, volume: Volume) -> None:
    call = new_call(fake_host)
    with fake_host.open("/dev/sda"):
        assert not fake_host.host.changes.is_claimed(call, "sda")
    with fake_host.open("/dev/sda", exclusive=True):
        assert fake_host.host.changes.is_claimed(call, "sda")
        with pytest.raises(OSError, match="busy") as caught:
            fake_host.open("/dev/sda", exclusive=True)
        assert caught.value.errno == errno.EBUSY
    assert not fake_host.host.changes.is_claimed(call, "sda")


def test_a_mount_shows_in_the_mount_table(fake_host: FakeHost, volume: Volume) -> None:
    fake_host.mount("/dev/sda", "/mnt/my data")
    assert block.read_users(fake_host.host, "sda") == ["sda is mounted at /mnt/my\\040data"]
    assert fake_host.host.changes.is_claimed(new_call(fake_host), "sda")
    fake_host.unmount("/mnt/my data")
    assert block.read_users(fake_host.host, "sda") == []


def test_a_delete_of_a_silent_path_waits_for_the_transport(
    fake_host: FakeHost, volume: Volume
) -> None:
    volume.target.portals[0].silent()
    began = fake_host.now
    delete(fake_host)
    assert fake_host.now - began == pytest.approx(10, abs=1)
    assert fake_host.disks() == []


def test_a_delete_of_an_offline_disk_does_not_wait(fake_host: FakeHost, volume: Volume) -> None:
    disk = read_disk(fake_host.host.sysfs, Hctl(2, 0, 0, 1))
    assert disk is not None
    volume.target.portals[0].silent()
    fake_host.host.changes.set_offline(new_call(fake_host), disk)
    began = fake_host.now
    delete(fake_host)
    assert fake_host.now - began == pytest.approx(0, abs=1)
