# SPDX-License-Identifier: Apache-2.0
"""What is neither left behind nor taken from its users when calls cannot do as they would: a LUN
that is away for a moment, a port that comes back, no turn, no attempts, no threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from os_brick import exception, executor
from os_brick.initiator.linux.fc_volume import FcTarget
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.fc_helpers import attached, prepared

BOTH = pytest.mark.parametrize("multipath", [False, True])


# -- leftovers -------------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("known", [False, True])
def test_a_path_that_the_kernel_brings_back_during_a_detach_goes_too(
    fake_host: FakeHost, known: bool, multipath: bool
) -> None:
    """A port that was lost for long is back while the data is being written out: the kernel scans
    it by itself."""
    connector, volume, info = attached(fake_host, multipath=multipath, hbas=1, ports=2)
    if not multipath:
        fake_host.multipathd.stop()
    fake_host.pass_time(1)
    port = volume.array.ports[1]
    port.lose(dev_loss_s=60)
    fake_host.pass_time(100)
    assert len(fake_host.disks()) == 1
    fake_host.write(info["path"], b"data")
    fake_host.faults.slow("sync", seconds=20)
    fake_host.after(5, port.restore)
    connector.disconnect_volume(volume.properties, info if known else None)
    assert volume.data == b"data"
    assert fake_host.lost == []
    assert fake_host.leftovers() == []


# -- users -----------------------------------------------------------------------------------
def mounted(host: FakeHost, device: str) -> None:
    host.mount(device, "/mnt")


def claimed(host: FakeHost, device: str) -> None:
    host.open(device, exclusive=True)


@BOTH
@pytest.mark.parametrize("use", [mounted, claimed])
def test_a_second_attach_takes_no_disk_away_that_is_in_use(
    fake_host: FakeHost, use: Callable[[FakeHost, str], None], multipath: bool
) -> None:
    """The array does not show the LUN for a moment, as one of its controllers takes over from the
    other."""
    if not multipath:
        fake_host.multipathd.stop()
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    use(fake_host, info["path"])
    fake_host.write(info["path"], b"data")
    used = fake_host.device(info["path"])
    carriers = [disk for disk in fake_host.disks() if multipath or disk is used]
    volume.vanish()
    with pytest.raises(
        exception.NoFibreChannelVolumeDeviceFound, match="has no LUN now but is in use, it is left"
    ):
        connector.connect_volume(volume.properties)
    volume.map()
    assert [disk for disk in fake_host.disks() if disk in carriers] == carriers
    assert fake_host.device(info["path"]) is used
    assert used.storage()[1] is volume.unit
    assert fake_host.lost == []


@BOTH
def test_a_disk_without_a_lun_is_no_hindrance_when_its_use_has_ended(
    fake_host: FakeHost, multipath: bool
) -> None:
    """The LUN is another volume's by then, and comes late."""
    if not multipath:
        fake_host.multipathd.stop()
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    other = volume.remap()
    other.vanish()
    with (
        fake_host.open(info["path"], exclusive=True),
        pytest.raises(exception.NoFibreChannelVolumeDeviceFound, match="is in use, it is left"),
    ):
        connector.connect_volume(other.properties)
    fake_host.after(1, other.map)
    info = connector.connect_volume(other.properties)
    assert fake_host.device(info["path"]).storage()[1] is other.unit


# -- waiting ---------------------------------------------------------------------------------
def test_a_forced_detach_that_does_not_get_its_turn_says_so(fake_host: FakeHost) -> None:
    """Nothing was attempted, so there is nothing that ``ignore_errors`` could ignore."""
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    there = fake_host.inventory()
    name = FcTarget(volume.array.wwpns[0], 1).volume_lock_name
    with fake_host.host.locks.tried(name) as mine:
        assert mine
        with pytest.raises(exception.ExceptionChainer, match="the lock of fc volume"):
            connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
    assert fake_host.inventory() == there


@BOTH
def test_no_attempts_count_as_one(fake_host: FakeHost, multipath: bool) -> None:
    volume = prepared(fake_host).lun(1)
    fake_host.multipathd.stop()
    connector = fake_host.connector(
        "FIBRE_CHANNEL", use_multipath=multipath, device_scan_attempts=0
    )
    info = connector.connect_volume(volume.properties)
    assert fake_host.device(info["path"]).storage()[1] is volume.unit


# -- threads ---------------------------------------------------------------------------------
def test_an_attach_that_gets_no_threads_fails_at_once(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: executor.Thread) -> None:
        raise RuntimeError("can't start new thread")

    volume = prepared(fake_host).lun(1)
    connector = fake_host.connector("FIBRE_CHANNEL")
    monkeypatch.setattr(executor.Thread, "start", start)
    began = fake_host.now
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound, match="can't start new thread"):
        connector.connect_volume(volume.properties)
    assert fake_host.now - began < 30
    assert fake_host.leftovers() == []
