# SPDX-License-Identifier: Apache-2.0
"""Volumes of a group: made, snapshot, activated, extended, renamed, reverted, deleted."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest
from oslo_concurrency import processutils
from oslo_config import cfg

from os_brick import exception
from os_brick.initiator.linux.locking import Locks
from os_brick.local_dev.lvm import LVM
from os_brick.testing import FakeHost
from os_brick.testing.lvm import GIB, MIB, Group, Volume
from os_brick.testing.process import Answer, Process
from os_brick.tests.unit.local_dev.helpers import (
    ENV,
    changes,
    crash_when_done,
    make_lvm,
    thin_lvm,
)

ACTIVATE = ("lvchange", "-a", "y", "--yes", "-K")
REMOVE = ("lvremove", "--config", "activation { retry_deactivation = 1} ", "-f")
REMOVE_HARDER = (
    "lvremove",
    "--config",
    "activation { retry_deactivation = 1} devices { ignore_suspended_devices = 1}",
    "-f",
)
SEGFAULTS = pytest.mark.parametrize("code", [139, -11])


@pytest.fixture
def group(fake_host: FakeHost) -> Group:
    """A group of 100 GiB."""
    return fake_host.lvm.group("vg", 100 * GIB)


@pytest.fixture
def lvm(fake_host: FakeHost, group: Group) -> LVM:
    """The library's view of it; its commands are forgotten."""
    made = make_lvm(fake_host)
    fake_host.forget()
    return made


# -- LV-11 create ----------------------------------------------------------------------------
def test_a_volume(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    lvm.create_volume("one", "10g")

    assert fake_host.started == [(*ENV, "lvcreate", "-n", "one", "vg", "-L", "10g")]
    assert group.volumes["one"].size == 10 * GIB


def test_a_volume_where_another_left_a_file_system(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    fake_host.lvm.volume(group, "origin")
    group.old_signature = True
    lvm.create_volume("one", "1g")
    group.old_signature = True
    lvm.create_lv_snapshot("snap", "origin")

    assert {"one", "snap"} < set(group.volumes)


def test_a_thin_volume(fake_host: FakeHost) -> None:
    lvm = thin_lvm(fake_host)

    lvm.create_volume("one", "500g", lv_type="thin")

    assert fake_host.started == [(*ENV, "lvcreate", "-T", "-V", "500g", "-n", "one", "vg/vg-pool")]


def test_a_thin_volume_needs_a_pool(fake_host: FakeHost, lvm: LVM) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="no thin pool"):
        lvm.create_volume("one", "1g", lv_type="thin")
    assert fake_host.started == []


@pytest.mark.parametrize(
    ("size", "region"), [("921g", []), ("1536g", ["-R", "2"]), ("4096g", ["-R", "4"])]
)
def test_a_mirrored_volume(fake_host: FakeHost, size: str, region: list[str]) -> None:
    fake_host.lvm.group("vg", 9000 * GIB)
    lvm = make_lvm(fake_host)
    fake_host.forget()

    lvm.create_volume("one", size, mirror_count=2)

    words = ["lvcreate", "-n", "one", "vg", "-L", size, "--type=mirror", "-m", "2", "--nosync"]
    assert fake_host.started == [(*ENV, *words, "--mirrorlog", "mirrored", *region)]


@pytest.mark.parametrize("name", ["one", "mirrored", "disk"])
def test_a_mirrored_volume_with_an_lvm_that_mirrors_no_log(
    fake_host: FakeHost, lvm: LVM, name: str
) -> None:
    fake_host.lvm.mirrored_logs = False

    lvm.create_volume(name, "1g", mirror_count=1)

    assert [words[-1] for words in fake_host.started] == ["mirrored", "disk"]
    assert fake_host.lvm.find(f"vg/{name}")


@pytest.mark.parametrize("size", ["", "g", "-1g", "1 g", "10x", "1g;", None, 5])
def test_sizes_that_are_none(fake_host: FakeHost, lvm: LVM, size: Any) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="size"):
        lvm.create_volume("one", size)
    with pytest.raises(exception.InvalidParameterValue, match="size"):
        lvm.extend_volume("one", size)
    assert changes(fake_host) == []


def test_names_that_are_none(fake_host: FakeHost, lvm: LVM) -> None:
    for name in ("-f", "a/b", "", "a b", "x\n"):
        calls: list[tuple[Callable[..., None], tuple[str, ...]]] = [
            (lvm.create_volume, (name, "1g")),
            (lvm.create_lv_snapshot, (name, "one")),
            (lvm.create_lv_snapshot, ("one", name)),
            (lvm.activate_lv, (name,)),
            (lvm.deactivate_lv, (name,)),
            (lvm.delete, (name,)),
            (lvm.extend_volume, (name, "1g")),
            (lvm.rename_volume, ("one", name)),
        ]
        for call, arguments in calls:
            with pytest.raises(exception.InvalidParameterValue):
                call(*arguments)
    assert fake_host.started == []


def test_no_room(fake_host: FakeHost, lvm: LVM, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(processutils.ProcessExecutionError, match="insufficient free space"):
        lvm.create_volume("one", "200g")

    assert "insufficient free space" in caplog.text  # the error is logged in full
    assert len(fake_host.started) == 1


# -- LV-02 crashes ---------------------------------------------------------------------------
@SEGFAULTS
def test_a_report_is_asked_for_again_after_a_crash(
    fake_host: FakeHost, group: Group, lvm: LVM, code: int
) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.faults.fail("lvs", code=code, times=2)
    before = fake_host.now

    assert lvm.get_volume("one") is not None
    assert len(fake_host.started) == 3
    assert fake_host.now - before == pytest.approx(0.75, abs=0.1)


@SEGFAULTS
def test_three_crashes_are_an_error(fake_host: FakeHost, lvm: LVM, code: int) -> None:
    fake_host.faults.fail("lvs", code=code, times=9)

    with pytest.raises(processutils.ProcessExecutionError) as caught:
        lvm.get_volume("one")

    assert caught.value.exit_code == code
    assert sum("lvs" in words for words in fake_host.started) == 3


def test_another_exit_code_is_an_error_at_once(fake_host: FakeHost, lvm: LVM) -> None:
    fake_host.faults.fail("lvcreate", code=5, times=9)

    with pytest.raises(processutils.ProcessExecutionError):
        lvm.create_volume("one", "1g")
    assert len(fake_host.started) == 1


def test_a_crash_before_anything_was_done(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.faults.fail("lvcreate", code=139, times=2)

    lvm.create_volume("one", "1g")

    assert "one" in group.volumes


def test_a_crash_before_the_volume_was_larger(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one", GIB)
    fake_host.faults.fail("lvextend", code=139, times=2)

    lvm.extend_volume("one", "2g")

    assert group.volumes["one"].size == 2 * GIB


def test_a_crash_before_the_volume_was_removed(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one", GIB)
    fake_host.faults.fail("lvremove", code=139, times=2)

    lvm.delete("one")

    assert group.volumes == {}


@SEGFAULTS
def test_a_crash_after_all_was_done(fake_host: FakeHost, group: Group, lvm: LVM, code: int) -> None:
    for name in ("lvcreate", "lvextend", "lvremove"):
        crash_when_done(fake_host, name, code=code)

    lvm.create_volume("one", "1g")
    lvm.extend_volume("one", "2g")
    assert group.volumes["one"].size == 2 * GIB
    lvm.delete("one")

    assert group.volumes == {}
    names = [words[2] if words[0] == "env" else words[0] for words in changes(fake_host)]
    assert names == ["lvcreate", "lvchange", "lvextend", "lvremove"]


def test_a_crash_before_the_new_volume_was_active(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    crash_when_done(fake_host, "lvcreate")
    fake_host.after(0.2, lambda: fake_host.lvm.deactivate(group.volumes["one"]))

    lvm.create_volume("one", "1g")

    assert lvm._lv_is_active("one")


def test_a_volume_that_was_there_before_is_not_taken_for_the_new_one(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    fake_host.lvm.volume(group, "one", GIB)
    fake_host.faults.fail("lvcreate", code=139, times=1)

    with pytest.raises(processutils.ProcessExecutionError, match="already exists"):
        lvm.create_volume("one", "1g")


# -- LV-12 snapshots -------------------------------------------------------------------------
def test_a_thick_snapshot_has_the_exact_size_of_its_source(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    fake_host.lvm.volume(group, "one", GIB + 4 * MIB)

    lvm.create_lv_snapshot("snap", "one")

    (made,) = changes(fake_host)
    words = ("lvcreate", "--name", "snap", "-k", "y", "--snapshot", "vg/one", "-L")
    assert made == (*ENV, *words, "1.00390625g")
    assert group.volumes["snap"].size == GIB + 4 * MIB
    assert len(fake_host.started) == 2


def test_a_thin_snapshot(fake_host: FakeHost) -> None:
    lvm = thin_lvm(fake_host)
    lvm.create_volume("one", "1g", "thin")
    fake_host.forget()

    lvm.create_lv_snapshot("snap", "one", lv_type="thin")

    assert changes(fake_host) == [
        (*ENV, "lvcreate", "--name", "snap", "-k", "y", "--snapshot", "vg/one")
    ]


def test_a_snapshot_of_nothing(fake_host: FakeHost, lvm: LVM) -> None:
    with pytest.raises(exception.VolumeDeviceNotFound, match="nothing"):
        lvm.create_lv_snapshot("snap", "nothing")
    assert changes(fake_host) == []


def test_a_snapshot_is_tried_again(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.faults.fail("lvcreate", code=5, times=2)
    before = fake_host.now

    lvm.create_lv_snapshot("snap", "one")

    assert group.volumes["snap"].origin == "one"
    assert fake_host.now - before == pytest.approx(3.0, abs=0.2)


def test_a_snapshot_fails_three_times(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.faults.fail("lvcreate", code=5, times=9, err="  no\n")

    with pytest.raises(processutils.ProcessExecutionError):
        lvm.create_lv_snapshot("snap", "one")
    assert len(changes(fake_host)) == 3


@pytest.mark.parametrize("code", [5, 139])
def test_a_snapshot_that_was_made_though_lvm_failed(
    fake_host: FakeHost, group: Group, lvm: LVM, code: int
) -> None:
    fake_host.lvm.volume(group, "one")
    crash_when_done(fake_host, "lvcreate", code=code)

    lvm.create_lv_snapshot("snap", "one")

    assert len(changes(fake_host)) == 1
    assert group.volumes["snap"].origin == "one"


def test_half_a_snapshot_is_none(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    """LVM makes a plain volume first."""
    fake_host.lvm.volume(group, "one")
    fake_host.faults.fail("lvcreate", "--snapshot", code=139, times=1)
    fake_host.after(0.1, lambda: fake_host.lvm.add(group, Volume("snap", GIB)))

    with pytest.raises(processutils.ProcessExecutionError, match="already exists"):
        lvm.create_lv_snapshot("snap", "one")


def test_a_snapshot_that_was_there_before_is_not_taken_for_the_new_one(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    fake_host.lvm.volume(group, "one", kind="o")
    fake_host.lvm.volume(group, "snap", kind="s", origin="one")

    with pytest.raises(processutils.ProcessExecutionError, match="already exists"):
        lvm.create_lv_snapshot("snap", "one")
    assert len(changes(fake_host)) == 1


def test_the_source_vanishes_between_two_tries(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.faults.fail("lvcreate", code=5)
    fake_host.after(0.5, lambda: group.volumes.pop("one"))

    with pytest.raises(exception.VolumeDeviceNotFound):
        lvm.create_lv_snapshot("snap", "one")


def test_who_has_snapshots(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    for name, kind in (("plain", "-"), ("origin", "o"), ("merging", "O"), ("thin", "V")):
        fake_host.lvm.volume(group, name, kind=kind)

    found = {name: lvm.lv_has_snapshot(name) for name in group.volumes}

    assert found == {"plain": False, "origin": True, "merging": True, "thin": False}
    with pytest.raises(exception.VolumeDeviceNotFound):
        lvm.lv_has_snapshot("nothing")


# -- LV-13, LV-14 active or not --------------------------------------------------------------
def test_activate(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    volume = fake_host.lvm.volume(group, "one", skip=True)

    lvm.activate_lv("one", is_snapshot=True)

    assert volume.mapping is not None
    assert changes(fake_host) == [(*ACTIVATE, "vg/one")]
    assert volume.skip
    assert lvm._lv_is_active("one")


def test_activate_for_good(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.version = "2.02.176(2) (2017-11-03)"
    volume = fake_host.lvm.volume(group, "one", skip=True)

    lvm.activate_lv("one", permanent=True)

    assert changes(fake_host) == [(*ACTIVATE, "-k", "n", "vg/one")]
    assert volume.mapping is not None
    assert not volume.skip


def test_activate_for_good_where_lvm_does_not_take_both_options(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    volume = fake_host.lvm.volume(group, "one", skip=True)

    lvm.activate_lv("one", permanent=True)

    assert changes(fake_host) == [
        (*ACTIVATE, "-k", "n", "vg/one"),
        ("lvchange", "-k", "n", "vg/one"),
        (*ACTIVATE, "vg/one"),
    ]
    assert volume.mapping is not None
    assert not volume.skip


def test_deactivate(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one-a")
    lvm.activate_lv("one-a")
    fake_host.forget()

    lvm.deactivate_lv("one-a")

    assert fake_host.started == [("lvchange", "-a", "n", "vg/one-a")]
    assert not lvm._lv_is_active("one-a")


@pytest.mark.parametrize("active", [False, True])
def test_reserved_names_are_mangled_also_while_waiting(
    fake_host: FakeHost, group: Group, lvm: LVM, active: bool
) -> None:
    fake_host.lvm.volume(group, "_snapshot-1")
    if active:
        fake_host.lvm.lingering["_snapshot-1"] = 3.0
    lvm.activate_lv("snapshot-1", is_snapshot=True)
    before = fake_host.now

    lvm.deactivate_lv("snapshot-1")

    assert [words[-1] for words in changes(fake_host)] == ["vg/_snapshot-1"] * 2
    assert (fake_host.now - before > 3.0) is active


def test_a_deactivation_that_takes_its_time(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.lvm.lingering["one"] = 14.0
    lvm.activate_lv("one")
    fake_host.forget()

    lvm.deactivate_lv("one")

    assert not lvm._lv_is_active("one")
    assert len(fake_host.started) == 1  # waiting starts no program


def test_a_deactivation_that_never_ends(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.lvm.lingering["one"] = 1000.0
    lvm.activate_lv("one")
    before = fake_host.now

    with pytest.raises(exception.VolumeNotDeactivated, match="Volume one was not deactivated"):
        lvm.deactivate_lv("one")
    assert fake_host.now - before == pytest.approx(15.0, abs=1.0)


def test_a_volume_in_use_is_not_deactivated(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    volume = fake_host.lvm.volume(group, "one")
    lvm.activate_lv("one")
    assert volume.mapping is not None
    fake_host.mount(f"/dev/{volume.mapping.name}", "/mnt")

    with pytest.raises(processutils.ProcessExecutionError, match="in use"):
        lvm.deactivate_lv("one")
    assert lvm._lv_is_active("one")


def test_activation_waits_while_the_pool_is_suspended(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    volume = fake_host.lvm.volume(group, "one")
    pool = fake_host.lvm.volume(group, "pool", kind="t")
    fake_host.lvm.activate(group, pool)
    fake_host.lvm.suspend(pool)
    fake_host.faults.fail("lvchange", code=5, err="  Cannot process volume\n")
    fake_host.after(2.0, lambda: fake_host.lvm.suspend(pool, False))

    lvm.activate_lv("one")

    assert volume.mapping is not None
    assert fake_host.now > 2.0


def test_a_suspended_volume_of_another_group_plays_no_part(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    other = fake_host.lvm.group("vg-2")
    pool = fake_host.lvm.volume(other, "pool", kind="t")
    fake_host.lvm.activate(other, pool)
    fake_host.lvm.suspend(pool)

    with pytest.raises(processutils.ProcessExecutionError, match="Failed to find"):
        lvm.activate_lv("nothing")
    assert len(fake_host.started) == 1


def test_activation_is_tried_again_if_lvm_says_suspended(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    volume = fake_host.lvm.volume(group, "one")
    fake_host.faults.fail(
        "lvchange", code=5, err="  Cannot process LV: thin pool vg-pool-tpool is suspended.\n"
    )

    lvm.activate_lv("one")

    assert volume.mapping is not None


def test_activation_fails_at_once_for_other_reasons(fake_host: FakeHost, lvm: LVM) -> None:
    with pytest.raises(processutils.ProcessExecutionError, match="Failed to find"):
        lvm.activate_lv("nothing")
    assert len(fake_host.started) == 1


# -- LV-15 delete ----------------------------------------------------------------------------
def test_delete(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    lvm.create_volume("one", "1g")
    fake_host.forget()

    lvm.delete("one")

    assert fake_host.started == [(*REMOVE, "vg/one")]
    assert group.volumes == {}


def test_a_failed_removal_settles_and_ignores_suspended_devices(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.faults.fail("lvremove", code=5)
    fake_host.faults.fail("udevadm", code=1)

    lvm.delete("one")

    assert [words for words in fake_host.started if words[0] in ("lvremove", "udevadm")] == [
        (*REMOVE, "vg/one"),
        ("udevadm", "settle"),
        (*REMOVE_HARDER, "vg/one"),
    ]
    assert group.volumes == {}


def test_a_removal_that_always_fails(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.faults.fail("lvremove", code=5, times=99, err="  no\n")
    before = fake_host.now

    with pytest.raises(processutils.ProcessExecutionError):
        lvm.delete("one")

    assert len(changes(fake_host)) == 6
    assert fake_host.now - before == pytest.approx(3.0, abs=0.5)


def test_a_mounted_volume_is_not_tried_again(
    fake_host: FakeHost, group: Group, lvm: LVM, caplog: pytest.LogCaptureFixture
) -> None:
    lvm.create_volume("one", "1g")
    mapping = group.volumes["one"].mapping
    assert mapping is not None
    fake_host.mount(f"/dev/{mapping.name}", "/srv/data")
    fake_host.forget()

    with pytest.raises(processutils.ProcessExecutionError, match="in use"):
        lvm.delete("one")

    assert len(fake_host.started) == 1
    assert "mounted at /srv/data" in caplog.text
    assert "one" in group.volumes


def test_a_volume_that_some_program_has_open(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    lvm.create_volume("one", "1g")
    mapping = group.volumes["one"].mapping
    assert mapping is not None
    fake_host.pass_time(1.0)
    fake_host.forget()

    with (
        fake_host.open(f"/dev/{mapping.name}"),
        pytest.raises(processutils.ProcessExecutionError, match="in use"),
    ):
        lvm.delete("one")

    assert len(changes(fake_host)) == 2


def test_a_program_looks_into_the_volume_for_a_moment(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    lvm.create_volume("one", "1g")
    mapping = group.volumes["one"].mapping
    assert mapping is not None
    opening = fake_host.open(f"/dev/{mapping.name}")
    fake_host.faults.slow("udevadm", seconds=1.0)
    fake_host.after(0.5, opening.close)

    lvm.delete("one")

    assert group.volumes == {}


def test_a_volume_that_is_not_there_is_not_tried_again(fake_host: FakeHost, lvm: LVM) -> None:
    with pytest.raises(processutils.ProcessExecutionError, match="Failed to find"):
        lvm.delete("nothing")
    assert len(changes(fake_host)) == 1


def test_a_removal_that_failed_and_removed(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.faults.fail("lvremove", code=5)  # first nothing, then all of it, both with an error
    crash_when_done(fake_host, "lvremove", code=5)

    lvm.delete("one")

    assert group.volumes == {}


# -- LV-16, LV-18 revert, rename -------------------------------------------------------------
def test_revert(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    lvm.create_volume("one", "1g")
    lvm.create_lv_snapshot("snap", "one")
    fake_host.forget()

    lvm.revert("vg/snap")

    assert fake_host.started == [("lvconvert", "--merge", "vg/snap")]
    assert set(group.volumes) == {"one"}
    with pytest.raises(processutils.ProcessExecutionError):
        lvm.revert("vg/snap")


def test_rename(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.lvm.volume(group, "one")
    fake_host.lvm.volume(group, "three")

    lvm.rename_volume("one", "two")

    assert fake_host.started == [("lvrename", "vg", "one", "two")]
    assert set(group.volumes) == {"two", "three"}
    with pytest.raises(processutils.ProcessExecutionError, match="already exists"):
        lvm.rename_volume("two", "three")


# -- LV-17 extend ----------------------------------------------------------------------------
@pytest.mark.parametrize(("size", "after"), [("3g", 3 * GIB), ("+1g", 2 * GIB)])
def test_extend(fake_host: FakeHost, group: Group, lvm: LVM, size: str, after: int) -> None:
    lvm.create_volume("one", "1g")
    fake_host.forget()

    lvm.extend_volume("one", size)

    assert changes(fake_host) == [(*ENV, "lvextend", "-L", size, "vg/one")]
    assert group.volumes["one"].size == after
    assert lvm._lv_is_active("one")


def test_a_volume_with_thick_snapshots_is_active_again_after_it_was_extended(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    lvm.create_volume("one", "1g")
    lvm.create_lv_snapshot("snap", "one")
    fake_host.forget()

    lvm.extend_volume("one", "2g")

    assert changes(fake_host) == [
        ("lvchange", "-a", "n", "vg/one"),
        (*ENV, "lvextend", "-L", "2g", "vg/one"),
        (*ACTIVATE, "vg/one"),
    ]
    assert group.volumes["one"].size == 2 * GIB
    assert lvm._lv_is_active("one")
    assert lvm._lv_is_active("snap")


def test_a_volume_with_thick_snapshots_that_is_inactive_stays_so(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    fake_host.lvm.volume(group, "one", kind="o")

    lvm.extend_volume("one", "2g")

    assert len(changes(fake_host)) == 1
    assert not lvm._lv_is_active("one")


def test_a_failed_extension_leaves_the_volume_as_it_was(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    lvm.create_volume("one", "1g")
    lvm.create_lv_snapshot("snap", "one")

    with pytest.raises(processutils.ProcessExecutionError, match="insufficient"):
        lvm.extend_volume("one", "500g")

    assert lvm._lv_is_active("one")
    assert group.volumes["one"].size == GIB


def test_the_extension_s_failure_is_told_though_the_volume_stays_inactive(
    fake_host: FakeHost, group: Group, lvm: LVM, caplog: pytest.LogCaptureFixture
) -> None:
    lvm.create_volume("one", "1g")
    lvm.create_lv_snapshot("snap", "one")
    fake_host.faults.fail("lvchange", "y", code=5, err="  cannot activate\n")

    with pytest.raises(processutils.ProcessExecutionError, match="insufficient"):
        lvm.extend_volume("one", "500g")
    assert "vg/one was left inactive" in caplog.text


def test_an_extended_volume_that_cannot_be_activated_again(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    lvm.create_volume("one", "1g")
    lvm.create_lv_snapshot("snap", "one")
    fake_host.faults.fail("lvchange", "y", code=5, err="  cannot activate\n")

    with pytest.raises(processutils.ProcessExecutionError, match="cannot activate"):
        lvm.extend_volume("one", "2g")


def test_an_extension_that_hangs_does_not_leave_the_volume_inactive(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    lvm.create_volume("one", "1g")
    lvm.create_lv_snapshot("snap", "one")
    fake_host.faults.hang("lvextend")
    with pytest.raises(exception.ExecutionTimeout):
        lvm.extend_volume("one", "2g")
    assert lvm._lv_is_active("one")


def test_a_volume_with_thick_snapshots_that_is_in_use_is_not_extended(
    fake_host: FakeHost, group: Group, lvm: LVM
) -> None:
    lvm.create_volume("one", "1g")
    lvm.create_lv_snapshot("snap", "one")
    mapping = group.volumes["one"].mapping
    assert mapping is not None
    fake_host.mount(f"/dev/{mapping.name}", "/srv")

    with pytest.raises(processutils.ProcessExecutionError, match="in use"):
        lvm.extend_volume("one", "2g")
    assert group.volumes["one"].size == GIB


def test_extending_nothing(fake_host: FakeHost, lvm: LVM) -> None:
    with pytest.raises(processutils.ProcessExecutionError, match="Failed to find"):
        lvm.extend_volume("nothing", "2g")


# -- time and locks --------------------------------------------------------------------------
def test_a_program_that_hangs_ends_with_the_call(fake_host: FakeHost, lvm: LVM) -> None:
    fake_host.faults.hang("lvcreate")
    before = fake_host.now

    with pytest.raises(exception.ExecutionTimeout):
        lvm.create_volume("one", "1g")
    assert fake_host.now - before == pytest.approx(cfg.CONF.os_brick.call_timeout, abs=1)


def test_two_calls_for_one_volume_take_turns(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    other = make_lvm(fake_host)
    inside: list[str] = []
    seen: list[tuple[str, ...]] = []

    def change(process: Process) -> Answer:
        inside.append(process.words[-1])
        seen.append(tuple(sorted(inside)))
        process.unlocked_spend(1.0)
        inside.remove(process.words[-1])
        return Answer()

    fake_host.programs.install("lvchange", change)
    threads = [
        threading.Thread(target=one.activate_lv, args=(name,))
        for one, name in ((lvm, "one"), (other, "one"), (lvm, "two"))
    ]
    for thread in threads:
        thread.start()
    with fake_host.idle():
        for thread in threads:
            thread.join()

    assert ("vg/one", "vg/two") in seen
    assert ("vg/one", "vg/one") not in [found[:2] for found in seen]


def test_no_lock_directory_is_needed(fake_host: FakeHost, group: Group) -> None:
    def nowhere() -> str:
        raise cfg.RequiredOptError("lock_path")

    host = dataclasses.replace(fake_host.host, locks=Locks(nowhere))
    lvm = LVM("vg", "sudo", host=host)

    lvm.create_volume("one", "1g")
    lvm.delete("one")

    assert [words[-1] for words in changes(fake_host)] == ["1g", "vg/one"]


def test_a_command_of_ones_own(fake_host: FakeHost, group: Group, lvm: LVM) -> None:
    fake_host.faults.fail("lvrename", code=139)
    fake_host.lvm.volume(group, "one")

    assert "Renamed" in lvm._run_lvm_command(["lvrename", "vg", "one", "two"])[0]
    assert "Renamed" in lvm._run_lvm_command(["lvrename", "vg", "two", "one"], "su")[0]
    with pytest.raises(processutils.ProcessExecutionError):
        lvm._run_lvm_command(["lvrename", "vg", "two", "one"], run_as_root=False)
