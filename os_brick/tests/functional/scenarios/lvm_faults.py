# SPDX-License-Identifier: Apache-2.0
"""Local volume groups in trouble: busy volumes, crashes, hanging programs, others' groups."""

from __future__ import annotations

from oslo_concurrency import processutils

from os_brick import exception
from os_brick.local_dev.lvm import LVM

from ..guest import data, faults, kernel, programs
from ..guest import volume_groups as lvm
from ..guest.lab import MIB, Lab, fails_with
from . import scenario

GIB = lvm.GIB
LONG_S = 300


@scenario(
    "a mounted volume is neither removed nor made inactive, and says so soon",
    limit_s=LONG_S,
    multipath=None,
)
def lvm_busy(lab: Lab) -> None:
    """One lvremove tells; it is not tried six times."""
    with lvm.group():
        group = lvm.view()
        group.create_volume("a", "100m")
        group.create_lv_snapshot("s", "a")
        with lvm.mounted("/dev/labvg/a") as where:
            (where / "file").write_text("precious")
            with (
                fails_with(processutils.ProcessExecutionError),
                programs.counted() as started,
                lab.timed("delete refused"),
            ):
                group.delete("a")
            assert [each.name for each in started] == ["lvremove"], list(map(str, started))
            with fails_with(processutils.ProcessExecutionError):
                group.deactivate_lv("a")
            with fails_with(processutils.ProcessExecutionError):
                group.extend_volume("a", "200m")
            assert (where / "file").read_text() == "precious"
            assert int(lvm.volume("labvg/a")["lv_size"]) == 100 * MIB
        with (
            open("/dev/labvg/a", "rb"),
            lab.timed("delete refused, open"),
            fails_with(processutils.ProcessExecutionError),
        ):
            group.delete("a")
        group.extend_volume("a", "200m")
        group.delete("s")
        group.delete("a")
        assert lvm.volumes() == []


@scenario(
    "other groups: alike in name, and with a disk missing",
    limit_s=LONG_S,
    multipath=None,
)
def lvm_other_groups(lab: Lab) -> None:
    """Only the group that is meant is touched and reported."""
    with lvm.group("labvg"), lvm.group("labvg2"), lvm.group("labvg-pool") as gone:
        kernel.run("lvcreate", "-y", "-n", "a", "-L", "32m", "labvg2")
        content = data.pattern("others", MIB)
        data.write("/dev/labvg2/a", content)
        group = lvm.view(lvm_type="thin")
        group.create_volume("a", "64m", "thin")
        assert [one["vg"] for one in group.get_volumes()] == ["labvg"] * 2
        assert [one["vg"] for one in group.get_physical_volumes()] == ["labvg"]
        assert len(LVM.get_all_physical_volumes("sudo")) == 3
        kernel.run("vgextend", "labvg-pool", lvm.disk("lost"))
        lost = kernel.run("losetup", "-j", "/run/lab-disks/lost", "-O", "NAME", "-n").strip()
        kernel.run("vgchange", "-a", "n", "labvg-pool")
        lvm.drop_disk(lost)
        other = lvm.view("labvg-pool")
        missing = [one for one in other.pv_list if one["name"] == "[unknown]"]
        assert [one["available"] for one in missing] == [0.0], other.pv_list
        assert len(other.pv_list) == 2
        group.update_volume_group_info()
        assert group.get_volume("a") is not None
        assert group.get_volume("b") is None
        group.delete("a")
        group.delete("labvg-pool")
        assert data.read("/dev/labvg2/a", MIB) == content
        kernel.run("vgreduce", "--removemissing", "labvg-pool")
        assert lvm.volumes("labvg2") == ["a"]
        assert gone


@scenario("two groups of one name are refused", multipath=None)
def lvm_same_name(lab: Lab) -> None:
    """As when a guest's disks show on its host."""
    with lvm.group("labvg") as first:
        kernel.run("vgrename", "labvg", "labold")
        with lvm.group("labvg2"):
            copy = lvm.disk("copy")
            lvm.drop_disk(first[0])
            kernel.run("vgcreate", "labold", copy)
            back = kernel.run("losetup", "--find", "--show", "/run/lab-disks/labvg-0").strip()
            try:
                with fails_with(exception.VolumeGroupNotFound) as caught:
                    lvm.view("labold")
                assert "More than one" in str(caught[0]), caught[0]
                assert lvm.view("labvg2").vg_size > 0
            finally:
                lvm.drop_disk(copy)
                kernel.run("vgrename", "labold", "labvg")
                assert back == first[0]


@scenario(
    "LVM's programs die of SIGSEGV, before and after their work", limit_s=LONG_S, multipath=None
)
def lvm_crashes(lab: Lab) -> None:
    """They are run again, unless their work is done."""
    with lvm.group():
        group = lvm.view()
        for program in ("lvs", "lvcreate", "lvextend", "lvremove"):
            lab.programs.crash(program, times=2)
        group.create_volume("a", "32m")
        group.create_lv_snapshot("s", "a")
        group.delete("s")
        group.extend_volume("a", "64m")
        group.delete("a")
        assert lvm.volumes() == []
        lab.programs.heal()
        for program in ("lvcreate", "lvextend", "lvremove"):
            lab.programs.crash(program, times=1, after=True)
        group.create_volume("a", "32m")
        assert int(lvm.volume("labvg/a")["lv_size"]) == 32 * MIB
        group.extend_volume("a", "64m")
        assert int(lvm.volume("labvg/a")["lv_size"]) == 64 * MIB
        group.delete("a")
        assert lvm.volumes() == []
        lab.programs.crash("lvs", times=3)
        with fails_with(processutils.ProcessExecutionError):
            group.get_volume("a")
        lab.programs.heal()


@scenario(
    "a program of LVM hangs: the call ends, others' go on",
    options={"call_timeout": 20},
    multipath=None,
)
def lvm_hang(lab: Lab) -> None:
    """The deadline holds, and nothing hangs on."""
    with lvm.group():
        group = lvm.view()
        lab.programs.hang("lvcreate", when="*-n a *")
        with fails_with(exception.ExecutionTimeout), lab.timed("hanging create"):
            group.create_volume("a", "32m")
        assert lab.seconds("hanging create") < 40
        lab.expect_no_program_hangs()
        group.create_volume("b", "32m")
        group.delete("b")


@scenario("activation waits while somebody changes the pool", limit_s=LONG_S, multipath=None)
def lvm_suspended(lab: Lab) -> None:
    """As right after another snapshot of the pool."""
    with lvm.group():
        group = lvm.view(lvm_type="thin")
        group.create_volume("a", "64m", "thin")
        group.deactivate_lv("a")
        faults.suspend("labvg-labvg--pool-tpool")
        faults.background("sh", "-c", "sleep 4; dmsetup resume labvg-labvg--pool-tpool")
        with lab.timed("activate"):
            group.activate_lv("a")
        assert "labvg-a" in lvm.mappings()
        group.delete("a")
        group.delete("labvg-pool")
