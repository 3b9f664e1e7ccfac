# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel attaches that fail: what they made goes, and nothing else."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.fc_storage import FcArray, FcVolume
from os_brick.tests.unit.initiator.connectors.fc_helpers import attached, map_link, prepared
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import disk_names

FAILURES = (exception.BrickException, processutils.ProcessExecutionError, OSError)
STATE = "bus/scsi/devices/2:0:0:1/state"


def when_looked_at(host: FakeHost, action: Callable[[], object]) -> None:
    """Have something happen when the first path's disk is about to be read."""
    done: list[str] = []

    def on_read(name: str) -> None:
        if name.endswith(STATE) and not done:
            done.append(name)
            action()

    host.faults.on_read = on_read


def unreadable_to(host: FakeHost, array: FcArray) -> None:
    """Have the array answer nothing once its disk is there."""
    when_looked_at(host, array.ports[0].silence)


# -- what was there ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ports", "multipath"), [("fc_host/*", False), ("fc_host/host3", True)], ids=["all", "one"]
)
def test_disks_that_were_there_stay_though_a_port_could_not_be_read_at_first(
    fake_host: FakeHost, ports: str, multipath: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    before = disk_names(fake_host)
    fake_host.faults.unreadable(f"sys/class/{ports}/port_name", errno.EMFILE)

    def fail_otherwise() -> None:
        fake_host.faults.mend()
        fake_host.faults.failing_writes["rescan"] = errno.EIO
        fake_host.faults.fail("multipath", "-C", times=99)

    fake_host.after(1, fail_otherwise)
    fake_host.faults.fail("multipath", "-C", times=99)
    with pytest.raises(FAILURES):
        connector.connect_volume(volume.properties)
    assert disk_names(fake_host) == before
    assert fake_host.lost == []


def test_a_host_that_cannot_be_looked_at_is_left_as_it_is(fake_host: FakeHost) -> None:
    volume = prepared(fake_host).lun(1)
    fake_host.faults.unreadable("sys/bus/scsi/devices", errno.EMFILE)
    with pytest.raises(OSError, match="open files"):
        fake_host.connector("FIBRE_CHANNEL").connect_volume(volume.properties)
    assert fake_host.journal == []


# -- in use by others ------------------------------------------------------------------------
def held(host: FakeHost, device: str) -> None:
    host.put_on_top(device, "vg-lv")


def mounted(host: FakeHost, device: str) -> None:
    host.mount(device, "/mnt")


def claimed(host: FakeHost, device: str) -> None:
    host.open(device, exclusive=True)


@pytest.mark.parametrize("use", [held, mounted, claimed])
def test_a_disk_that_another_service_uses_by_now_stays(
    fake_host: FakeHost, use: Callable[[FakeHost, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    array = prepared(fake_host, hbas=1, ports=1)
    volume = array.lun(1)
    fake_host.multipathd.stop()

    def act() -> None:
        use(fake_host, "/dev/sda")
        fake_host.write("/dev/sda", b"data")
        array.ports[0].silence()

    when_looked_at(fake_host, act)
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        fake_host.connector("FIBRE_CHANNEL").connect_volume(volume.properties)
    assert disk_names(fake_host) == ["sda"]
    assert fake_host.lost == []
    assert "sda [2:0:0:1] is left, as it is in use by now" in caplog.text


def fail_when_mapped(host: FakeHost) -> FcVolume:
    """Return a volume whose map is found unusable, which takes 14 s."""
    host.faults.fail("multipath", "-C", times=99)
    return prepared(host).lun(1)


def test_a_map_that_another_service_uses_by_now_stays(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    volume = fail_when_mapped(fake_host)
    fake_host.after(5, lambda: fake_host.open(map_link(volume)))
    fake_host.after(6, lambda: fake_host.write(map_link(volume), b"data"))
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    with pytest.raises(processutils.ProcessExecutionError):
        connector.connect_volume(volume.properties)
    assert len(fake_host.multipathd.maps()[0].slaves) == 4
    assert fake_host.lost == []
    assert "is open 1 times in other programs" in caplog.text


def test_who_only_looks_at_a_map_does_not_keep_it(fake_host: FakeHost) -> None:
    volume = fail_when_mapped(fake_host)

    def look() -> None:
        fake_host.after(6, fake_host.open(map_link(volume)).close)

    fake_host.after(12, look)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    with pytest.raises(processutils.ProcessExecutionError):
        connector.connect_volume(volume.properties)
    assert fake_host.leftovers() == []


def test_a_map_that_its_tool_does_not_remove_goes_all_the_same(fake_host: FakeHost) -> None:
    volume = fail_when_mapped(fake_host)
    fake_host.faults.fail("multipath", "-f", times=99)
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    with pytest.raises(processutils.ProcessExecutionError):
        connector.connect_volume(volume.properties)
    assert fake_host.leftovers() == []


def test_paths_made_to_a_map_that_was_there_go_and_it_stays_in_use(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True, hbas=1, ports=2)
    fake_host.pass_time(1)
    disk = fake_host.disks()[1]
    assert disk.device is not None
    fake_host.scsi.drop(disk.device)
    fake_host.pass_time(1)
    fake_host.open(info["path"])
    fake_host.write(info["path"], b"data")
    before = disk_names(fake_host)
    fake_host.faults.fail("multipath", "-C", times=99)
    with pytest.raises(processutils.ProcessExecutionError):
        connector.connect_volume(volume.properties)
    assert disk_names(fake_host) == before
    assert fake_host.lost == []


# -- units of IBM Z --------------------------------------------------------------------------
def test_the_unit_of_a_service_that_was_faster_stays(fake_host: FakeHost) -> None:
    hba = fake_host.zfcp.add_adapter()
    array = fake_host.fc_array(1)
    volume = array.lun(1)
    fake_host.faults.slow_writes["unit_add"] = 1.0
    fake_host.after(0.5, lambda: fake_host.zfcp.configure(hba, array.ports[0], 1))
    fake_host.after(0.8, lambda: fake_host.write("/dev/sda", b"data"))
    unreadable_to(fake_host, array)
    connector = fake_host.connector("FIBRE_CHANNEL", arch="s390x")
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(volume.properties)
    assert len(fake_host.zfcp.units()) == 1
    assert disk_names(fake_host) == ["sda"]
    assert fake_host.lost == []


def test_a_unit_that_the_driver_is_slow_with_goes(fake_host: FakeHost) -> None:
    hba = fake_host.zfcp.add_adapter()
    array = fake_host.fc_array(1)
    volume = array.lun(1, mapped=False)
    fake_host.faults.slow_writes["unit_add"] = 500.0  # the driver is given up waiting for
    fake_host.after(122, lambda: fake_host.zfcp.configure(hba, array.ports[0], 1))
    connector = fake_host.connector("FIBRE_CHANNEL", arch="s390x")
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(volume.properties)
    assert fake_host.zfcp.units() == []


def test_units_that_cannot_be_looked_at_do_not_hide_why_the_attach_failed(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.zfcp.add_adapter()
    volume = fake_host.fc_array(1).lun(1, mapped=False)
    units = "sys/bus/ccw/drivers/zfcp/*/0x*/0x*"
    fake_host.after(3, lambda: fake_host.faults.unreadable(units, errno.EMFILE))
    connector = fake_host.connector("FIBRE_CHANNEL", arch="s390x")
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(volume.properties)
    assert "zfcp unit 0x0001000000000000" in caplog.text
