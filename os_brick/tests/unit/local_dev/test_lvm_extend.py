# SPDX-License-Identifier: Apache-2.0
"""Extensions of LVM volumes that end in the middle."""

from __future__ import annotations

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.local_dev.lvm import LVM
from os_brick.testing import FakeHost
from os_brick.testing.lvm import GIB, Group
from os_brick.testing.lvm_programs import LvmPrograms
from os_brick.testing.process import Answer, Process
from os_brick.tests.unit.local_dev.helpers import make_lvm


@pytest.fixture
def group(fake_host: FakeHost) -> Group:
    return fake_host.lvm.group("vg", 100 * GIB)


@pytest.fixture
def lvm(fake_host: FakeHost, group: Group) -> LVM:
    made = make_lvm(fake_host)
    fake_host.forget()
    return made


def test_a_deactivation_that_fails_late_does_not_leave_the_volume_inactive(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    """lvchange -a n removes the mapping, then waits for udev, and is stopped at its limit."""
    lvm.create_volume("one", "1g")
    lvm.create_lv_snapshot("snap", "one")
    program = LvmPrograms(fake_host.lvm, fake_host.programs.call).programs()["lvchange"]

    def hanging(process: Process) -> Answer:
        answer = program(process)
        if "n" in process.words:
            process.unlocked_wait(lambda: False)
        return answer

    fake_host.programs.install("lvchange", hanging)
    with pytest.raises((processutils.ProcessExecutionError, exception.DeadlineExceeded)):
        lvm.extend_volume("one", "2g")
    assert group.volumes["one"].size == GIB
    assert lvm._lv_is_active("one")


def test_a_mapping_that_lingers_does_not_leave_the_volume_inactive(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    lvm.create_volume("one", "1g")
    lvm.create_lv_snapshot("snap", "one")
    fake_host.lvm.lingering["one"] = 20.0
    with pytest.raises(exception.VolumeNotDeactivated):
        lvm.extend_volume("one", "2g")
    fake_host.pass_time(30)
    assert lvm._lv_is_active("snap")


def test_an_extension_that_crashed_before_the_kernel_heard_of_it(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    lvm.create_volume("one", "1g")
    volume = group.volumes["one"]
    left = [1]
    program = LvmPrograms(fake_host.lvm, fake_host.programs.call).programs()["lvextend"]

    def dying(process: Process) -> Answer:
        if not left[0]:
            return program(process)
        left[0] -= 1
        volume.size = 2 * GIB  # committed to the disks; the mapping's table is the old one
        fake_host.lvm.suspend(volume)
        return Answer(139)

    fake_host.programs.install("lvextend", dying)
    lvm.extend_volume("one", "2g")
    assert volume.mapping is not None
    assert volume.mapping.size == 2 * GIB
    assert not volume.mapping.suspended
