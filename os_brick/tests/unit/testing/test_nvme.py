# SPDX-License-Identifier: Apache-2.0
"""NVMe and md arrays of a fake host behave as the kernel's and the tools' do."""

from __future__ import annotations

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.nvme_storage import INACCESSIBLE, Subsystem

CONNECT = ("nvme", "connect", "-t", "tcp", "-s", "4420", "-Q", "128", "-l", "-1")


def connect(host: FakeHost, subsystem: Subsystem, address: str, **more: str) -> tuple[str, str]:
    words = [word for option, value in more.items() for word in (f"-{option}", value)]
    return host.execute(
        *CONNECT, "-n", subsystem.nqn, "-a", address, *words, run_as_root=True, timeout=300
    )


def test_names_of_native_multipath(fake_host: FakeHost) -> None:
    """The head has the subsystem's number, which is no controller's."""
    fake_host.nvme.load()
    subsystem = fake_host.nvme_subsystem(portals=2)
    subsystem.namespace(5)
    for portal in subsystem.portals:
        connect(fake_host, subsystem, portal.address)
    fake_host.pass_time(1)
    sysfs = fake_host.host.sysfs
    names = [sysfs.names("class/nvme-fabrics/ctl", name) for name in ("nvme0", "nvme1")]
    assert "nvme2c0n1" in names[0]
    assert "nvme2c1n1" in names[1]
    assert sysfs.text("block/nvme2n1/nsid") == "5"


def test_names_without_it(fake_host: FakeHost) -> None:
    fake_host.nvme.native_multipath = False
    subsystem = fake_host.nvme_subsystem(portals=2, connected=True)
    subsystem.namespace()
    fake_host.pass_time(1)
    assert fake_host.host.sysfs.names("block") == ["nvme0n1", "nvme1n1"]
    assert fake_host.host.sysfs.text("module/nvme_core/parameters/multipath") == "N"


def test_without_a_uuid_the_nguid_is_shown_as_such(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(connected=True).namespace(with_uuid=False)
    fake_host.pass_time(1)
    assert fake_host.host.sysfs.text("block/nvme2n1/uuid") == volume.unit.nguid


@pytest.mark.parametrize(
    ("version", "code"), [((1, 8), 142), ((1, 9), 70), ((1, 14), 114), ((2, 3), 1)]
)
def test_connected_already(fake_host: FakeHost, version: tuple[int, int], code: int) -> None:
    """Exit codes as in the versions of nvme-cli."""
    fake_host.nvme_cli.version = version
    subsystem = fake_host.nvme_subsystem(connected=True)
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        connect(fake_host, subsystem, "10.0.1.1")
    assert caught.value.exit_code == code


def test_a_host_id_belongs_to_one_nqn(fake_host: FakeHost) -> None:
    """Linux 6.5 and later."""
    fake_host.nvme.load()
    first, second = fake_host.nvme_subsystem(), fake_host.nvme_subsystem()
    connect(fake_host, first, "10.0.1.1")
    with pytest.raises(processutils.ProcessExecutionError):
        connect(fake_host, second, "10.0.1.1", q="nqn.other")
    connect(fake_host, second, "10.0.1.1", q="nqn.other", I="another-id")
    fake_host.nvme.strict_pairs = False
    connect(fake_host, first, "10.0.1.1", q="nqn.third")


def test_the_kernel_connects_one_by_one_and_goes_on(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    fake_host.nvme.load()
    fake_host.nvme.connect_s = 10
    with pytest.raises(exception.ExecutionTimeout):
        fake_host.execute(*CONNECT, "-n", subsystem.nqn, "-a", "10.0.1.1", timeout=4)
    assert fake_host.nvme.controllers == []
    connect(fake_host, subsystem, "10.0.1.2")
    assert fake_host.now > 19
    assert len(fake_host.nvme.controllers) == 2


def test_io_waits_for_a_path_as_long_as_there_is_a_controller(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2, connected=True)
    volume = subsystem.namespace()
    fake_host.pass_time(1)
    head = fake_host.device("/dev/nvme2n1")
    assert head.storage() == ("alive", volume.unit)
    for portal in subsystem.portals:
        portal.kill()
    assert head.storage()[0] == "hangs"
    for portal in subsystem.portals:
        portal.restore()
    fake_host.pass_time(11)
    assert head.storage()[0] == "alive"
    subsystem.set_ana(0, 1, INACCESSIBLE)
    assert head.storage()[0] == "alive"
    subsystem.set_ana(1, 1, INACCESSIBLE)
    assert head.storage()[0] == "hangs"
    fake_host.write("/dev/nvme2n1", b"data")
    for one in list(fake_host.nvme.controllers):
        fake_host.nvme.delete(one)
    assert [loss.data for loss in fake_host.lost] == [b"data"]


def test_changes_show_by_an_event_or_by_a_scan(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(connected=True)
    fake_host.pass_time(1)
    subsystem.sends_events = False
    volume = subsystem.namespace()
    fake_host.pass_time(60)
    assert fake_host.nvme.controllers[0].paths == []
    fake_host.execute("nvme", "ns-rescan", "/dev/nvme0")
    fake_host.pass_time(1)
    volume.grow(2 * 1024**3)
    fake_host.pass_time(1)
    assert fake_host.device("/dev/nvme2n1").size == 1024**3
    subsystem.sends_events = True
    volume.grow(3 * 1024**3)
    fake_host.pass_time(1)
    assert fake_host.device("/dev/nvme2n1").size == 3 * 1024**3


def test_an_array_lives_on_its_members(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(connected=True)
    legs = [subsystem.namespace(), subsystem.namespace()]
    fake_host.pass_time(1)
    disks = ("/dev/nvme2n1", "/dev/nvme2n2")
    fake_host.execute("mdadm", "-C", "/dev/md/a", "-R", "-N", "a", "--level", "1", *disks)
    fake_host.pass_time(1)
    assert fake_host.host.dev.link_name("md/a") == "md127"
    assert fake_host.device("/dev/nvme2n1").claimed
    out, _err = fake_host.execute("mdadm", "--examine", disks[1])
    assert out.startswith("/dev/nvme2n2:\n")
    assert "Active device 1" in out
    opening = fake_host.open("/dev/md/a", exclusive=True)
    with pytest.raises(processutils.ProcessExecutionError):
        fake_host.execute("mdadm", "--stop", "/dev/md/a")
    opening.close()
    fake_host.execute("mdadm", "--stop", "/dev/md/a")
    assert legs[0].unit.superblock is not None
    assert not fake_host.host.dev.exists("md/a")
