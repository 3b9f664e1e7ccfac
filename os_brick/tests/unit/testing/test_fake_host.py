# SPDX-License-Identifier: Apache-2.0
"""The programs, faults and records of a fake host."""

from __future__ import annotations

import errno
import os
import pathlib
import threading

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.linux.scsi import Hctl, read_disk
from os_brick.testing import FakeHost
from os_brick.tests.unit.testing.helpers import new_call, run, session_to


def test_a_host_leaves_no_folder_though_a_thread_waits_in_it() -> None:
    told: list[bool] = []

    def wait() -> None:
        with pytest.raises(RuntimeError):
            host.pass_time(3600)
        told.append(True)

    thread = threading.Thread(target=wait)
    with FakeHost() as host:
        root = os.path.dirname(host.host.sysfs.root)
        assert os.path.isdir(root)
        thread.start()
        host.pass_time(1)  # which it does once the thread waits too
    assert not os.path.exists(root)
    thread.join(30)
    assert told == [True]


def test_a_thread_that_outlives_its_host_gets_no_lock() -> None:
    with FakeHost() as host:
        call = new_call(host)
    with pytest.raises(RuntimeError), host.host.locks.held(call, ["volume-1"]):
        pass
    assert not os.path.exists(os.path.dirname(host.host.sysfs.root))


def test_a_folder_that_was_given_stays(tmp_path: pathlib.Path) -> None:
    with FakeHost(str(tmp_path / "host")) as host:
        host.iscsi_target().lun(1)
    assert (tmp_path / "host" / "sys" / "class" / "block").is_dir()


def test_every_program_is_recorded_in_order(fake_host: FakeHost) -> None:
    run(fake_host, "cat /etc/iscsi/initiatorname.iscsi")
    run(fake_host, "multipathd show status")
    assert fake_host.started == [
        ("cat", "/etc/iscsi/initiatorname.iscsi"),
        ("multipathd", "show", "status"),
    ]
    fake_host.forget()
    assert fake_host.started == []


@pytest.mark.parametrize("check", [21, [0, 21], (21,), False])
def test_accepted_exit_codes(fake_host: FakeHost, check: object) -> None:
    out, err = fake_host.execute("iscsiadm", "-m", "session", check_exit_code=check)
    assert (out, err) == ("", "iscsiadm: No active sessions.\n")


@pytest.mark.parametrize("check", [0, [0], True, 255])
def test_other_exit_codes_raise(fake_host: FakeHost, check: object) -> None:
    with pytest.raises(processutils.ProcessExecutionError) as caught:
        fake_host.execute("iscsiadm", "-m", "session", check_exit_code=check)
    assert caught.value.exit_code == 21


def test_an_unknown_program_is_a_mistake(fake_host: FakeHost) -> None:
    with pytest.raises(AssertionError, match="no program 'mkfs'"):
        fake_host.execute("mkfs", "/dev/sda")
    with pytest.raises(AssertionError, match="no program 'mkfs'"):
        fake_host.check()
    fake_host.forgive()


def test_a_program_that_hangs_is_stopped_at_its_limit(fake_host: FakeHost) -> None:
    fake_host.faults.hang("multipathd", "show")
    with pytest.raises(exception.ExecutionTimeout) as caught:
        fake_host.execute("multipathd", "show", "status", timeout=30)
    assert (caught.value.exit_code, fake_host.now) == (None, 30)


def test_a_program_without_a_limit_is_stopped_after_the_usual_ten_minutes(
    fake_host: FakeHost,
) -> None:
    fake_host.faults.hang("multipathd")
    with pytest.raises(exception.ExecutionTimeout):
        fake_host.execute("multipathd", "show", "status")
    assert fake_host.now == 600


def test_a_program_fails_as_often_as_ordered(fake_host: FakeHost) -> None:
    fake_host.faults.fail("iscsiadm", "--op", "new", code=6, times=2, err="busy\n")
    new = "iscsiadm -m node -T iqn.2010-10.org.example:a -p 10.0.0.1 --op new"
    assert [run(fake_host, new)[0] for _ in range(3)] == [6, 6, 0]


def test_a_program_may_print_warnings_beside_its_answer(fake_host: FakeHost) -> None:
    session_to(fake_host, fake_host.iscsi_target())
    fake_host.faults.mumble("iscsiadm", err="warning\n", out="debug\n")
    code, out, err = run(fake_host, "iscsiadm -m session")
    assert (code, err) == (0, "warning\n")
    assert out.startswith("debug\ntcp: [1]")


def test_a_slow_program_takes_its_time_and_works(fake_host: FakeHost) -> None:
    fake_host.faults.slow("iscsiadm", "--login", seconds=40)
    fake_host.iscsi_target(iqn="iqn.2010-10.org.example:a")
    node = "iscsiadm -m node -T iqn.2010-10.org.example:a -p 10.0.0.1:3260"
    run(fake_host, f"{node} --op new")
    assert run(fake_host, f"{node} --login")[0] == 0
    assert fake_host.now == pytest.approx(40, abs=1)


def test_sysfs_writes_can_hang_and_fail(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    target.lun(1)
    session_to(fake_host, target, scans=False)
    fake_host.faults.slow_writes["scan"] = float("inf")
    with pytest.raises(TimeoutError):
        fake_host.host.changes.scan(new_call(fake_host, 20), 2, "-", "-", 1)
    assert fake_host.now == 20
    fake_host.faults.mend()
    fake_host.faults.failing_writes["scan"] = errno.EINVAL
    with pytest.raises(OSError, match="Invalid argument"):
        fake_host.host.changes.scan(new_call(fake_host), 2, "-", "-", 1)


def test_changes_by_program_act_on_the_same_host(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    volume = target.lun(1)
    session_to(fake_host, target, scans=False)
    foreign, call = fake_host.foreign_host, new_call(fake_host)
    foreign.changes.scan(call, 2, "-", "-", 1)
    fake_host.pass_time(1)
    disk = read_disk(fake_host.host.sysfs, Hctl(2, 0, 0, 1))
    assert disk is not None
    said = foreign.changes.inquire(call, disk)
    assert said is not None
    assert said.wwid == volume.wwid
    foreign.changes.rescan(call, disk)
    foreign.changes.link(call, "/dev/sda", "/dev/disk/by-id/os-brick+dev+sda")
    assert foreign.dev.link_target("disk/by-id/os-brick+dev+sda") == "/dev/sda"
    assert foreign.dev.device_number("disk/by-id/os-brick+dev+sda") == (8, 0)
    foreign.changes.unlink(call, "/dev/disk/by-id/os-brick+dev+sda")
    assert not foreign.dev.exists("disk/by-id/os-brick+dev+sda")
    foreign.changes.delete(call, disk)
    assert fake_host.disks() == []
    assert [words[0] for words in fake_host.started] == [
        "tee",
        "/lib/udev/scsi_id",
        "tee",
        "ln",
        "rm",
        "tee",
    ]


def test_a_device_node_is_not_removed_as_a_link(fake_host: FakeHost) -> None:
    session_to(fake_host, fake_host.iscsi_target())
    fake_host.iscsi_target().lun(1)
    target = fake_host.iscsi_target()
    target.lun(1)
    session_to(fake_host, target)
    fake_host.pass_time(1)
    with pytest.raises(AssertionError, match="not a link"):
        fake_host.host.changes.unlink(new_call(fake_host), "/dev/sda")


def test_leftovers_are_what_was_not_there_at_the_first_call(fake_host: FakeHost) -> None:
    old = fake_host.iscsi_target()
    session_to(fake_host, old)
    fake_host.remember()
    assert fake_host.leftovers() == []
    target = fake_host.iscsi_target()
    target.lun(1)
    session = session_to(fake_host, target)
    fake_host.pass_time(1)
    left = fake_host.leftovers()
    for kind in ("session", "map", "device", "path", "link"):
        assert any(one.startswith(kind) for one in left), kind
    fake_host.sessions.end(session)
    assert fake_host.leftovers() == []


def test_a_portal_answers_as_its_state_says(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(["10.0.0.1:3260", "10.0.0.2:3260"])
    network = fake_host.host.network
    assert network.answers("10.0.0.1", 3260, 5)
    target.portals[0].silent()
    assert not network.answers("10.0.0.1", 3260, 5)
    assert fake_host.now == 5
    target.portals[1].refuse()
    with pytest.raises(ConnectionRefusedError):
        network.answers("10.0.0.2", 3260, 5)
    fake_host.network.names["array.example"] = ["10.0.0.1"]
    assert network.addresses("array.example") == ["10.0.0.1"]
    assert network.addresses("nobody.example") == []


def test_twenty_callers_at_once(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    for number in range(20):
        target.lun(number)
    session_to(fake_host, target, scans=False)
    found: list[str] = []

    def attach(number: int) -> None:
        call = new_call(fake_host, 30)
        fake_host.host.changes.scan(call, 2, "-", "-", number)
        disk = call.wait_until(
            lambda: read_disk(fake_host.host.sysfs, Hctl(2, 0, 0, number)), what="disk"
        )
        found.append(disk.name if disk else "none")

    threads = [threading.Thread(target=attach, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [f"sd{letter}" for letter in "abcdefghijklmnopqrst"]
    assert fake_host.now < 5
