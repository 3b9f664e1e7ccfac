# SPDX-License-Identifier: Apache-2.0
"""Being sure that the namespace that is handed out is the volume."""

from __future__ import annotations

import errno

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.nvme_storage import INACCESSIBLE
from os_brick.tests.unit.initiator.connectors.nvme_helpers import connector

FOREIGN = pytest.mark.parametrize("foreign", [False, True])


# -- names that another volume gets --------------------------------------------------------
@pytest.mark.parametrize("ids", [("uuid",), ("nsid",)])
def test_a_name_that_another_volume_got_meanwhile_is_not_handed_out(
    fake_host: FakeHost, ids: tuple[str, ...]
) -> None:
    """The volume goes while it is waited for access, and another one gets its disk's name."""
    subsystem = fake_host.nvme_subsystem()
    volume, other = subsystem.namespace(1), subsystem.namespace(2, mapped=False)
    subsystem.set_ana(0, 1, INACCESSIBLE)
    fake_host.after(2, volume.vanish)
    fake_host.after(4, other.map)
    with pytest.raises(exception.VolumeDeviceNotFound, match="not any more"):
        connector(fake_host).connect_volume(volume.connection(*ids))


def test_a_number_that_another_volume_got_meanwhile_is_not_handed_out(fake_host: FakeHost) -> None:
    """As before, but neither of them has an identifier besides its number."""
    subsystem = fake_host.nvme_subsystem()
    volume = subsystem.namespace(1, with_uuid=False, with_nguid=False)
    other = subsystem.namespace(1, with_uuid=False, with_nguid=False, mapped=False)
    subsystem.set_ana(0, 1, INACCESSIBLE)
    fake_host.after(2, volume.vanish)
    fake_host.after(4, lambda: subsystem.set_ana(0, 1, "optimized"))
    fake_host.after(5, other.map)
    with pytest.raises(exception.VolumeDeviceNotFound, match="not any more"):
        connector(fake_host).connect_volume(volume.connection("nsid"))


def test_a_disk_that_is_exchanged_while_other_portals_are_waited_for(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume, other = subsystem.namespace(1), subsystem.namespace(2, mapped=False)
    fake_host.faults.slow("nvme", "connect", "10.0.1.2", seconds=20)
    fake_host.after(0.2, volume.vanish)
    fake_host.after(0.3, other.map)
    with pytest.raises(exception.VolumeDeviceNotFound, match="taken away"):
        connector(fake_host).connect_volume(volume.properties)


# -- subsystems that do not say ------------------------------------------------------------
@pytest.mark.parametrize("error", [errno.ETIMEDOUT, errno.ENOENT, errno.EIO])
def test_without_the_subsystems_word_nothing_is_handed_out(fake_host: FakeHost, error: int) -> None:
    """The kernel shows what the number was before."""
    subsystem = fake_host.nvme_subsystem(connected=True)
    volume = subsystem.namespace(1)
    fake_host.pass_time(1)
    subsystem.sends_events = False
    volume.remap()
    fake_host.nvme.scan_s = 1000  # the kernel's scan has not come to it yet
    fake_host.faults.failing_writes["identify"] = error
    with pytest.raises(exception.VolumeDeviceNotFound, match="could not be asked"):
        connector(fake_host).connect_volume(volume.properties)


@pytest.mark.parametrize("said", ["", "garbage\n"])
def test_what_nvme_cli_mumbles_is_no_word(fake_host: FakeHost, said: str) -> None:
    volume = fake_host.nvme_subsystem(connected=True).namespace(1)
    fake_host.pass_time(1)
    fake_host.faults.fail("nvme", "ns-descs", code=0, out=said, times=99)
    with pytest.raises(exception.VolumeDeviceNotFound, match="could not be asked"):
        connector(fake_host, foreign=True).connect_volume(volume.properties)


def test_a_subsystem_is_asked_again(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(connected=True).namespace(1)
    fake_host.pass_time(1)
    fake_host.faults.failing_writes["identify"] = errno.EIO
    fake_host.after(5, fake_host.faults.mend)
    path = connector(fake_host).connect_volume(volume.properties)["path"]
    assert fake_host.device(path).storage()[1] is volume.unit


@FOREIGN
@pytest.mark.parametrize("version", [(1, 8), (1, 16), (2, 3)])
def test_a_subsystem_without_lists_of_identifiers_is_taken_at_the_kernels_word(
    fake_host: FakeHost, version: tuple[int, int], foreign: bool
) -> None:
    fake_host.nvme_cli.version = version
    subsystem = fake_host.nvme_subsystem(connected=True)
    subsystem.describes = False
    volume = subsystem.namespace(1)
    fake_host.pass_time(1)
    path = connector(fake_host, foreign=foreign).connect_volume(volume.properties)["path"]
    assert fake_host.device(path).storage()[1] is volume.unit


@FOREIGN
@pytest.mark.parametrize("version", [(1, 8), (1, 16), (2, 3)])
def test_a_namespace_that_the_subsystem_has_no_more_is_not_handed_out(
    fake_host: FakeHost, version: tuple[int, int], foreign: bool
) -> None:
    fake_host.nvme_cli.version = version
    subsystem = fake_host.nvme_subsystem(connected=True)
    volume = subsystem.namespace(1)
    fake_host.pass_time(1)
    subsystem.sends_events = False
    volume.vanish()
    fake_host.nvme.scan_s = 1000
    with pytest.raises(exception.VolumeDeviceNotFound, match="does not show"):
        connector(fake_host, foreign=foreign).connect_volume(volume.properties)
