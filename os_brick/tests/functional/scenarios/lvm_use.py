# SPDX-License-Identifier: Apache-2.0
"""Volumes of a local volume group on real disks: made, snapshot, extended, reverted, removed."""

from __future__ import annotations

import functools
import os

from os_brick import exception
from os_brick.local_dev.lvm import LVM

from ..guest import data, kernel, programs, service
from ..guest import volume_groups as lvm
from ..guest.lab import MIB, Lab, fails_with
from . import SMOKE_S, scenario

GIB = lvm.GIB
LONG_S = 300


@scenario("a group made of two disks; its attributes are LVM's own, exact", multipath=None)
def lvm_group(lab: Lab) -> None:
    """vgcreate gets each disk as a word; sizes are compared in bytes."""
    lvm.load()
    disks = [lvm.disk("one", GIB), lvm.disk("two", GIB // 2)]
    group = LVM("labvg", "sudo", create_vg=True, physical_volumes=disks)
    (stated,) = lvm.report("vgs", "vg_size,vg_free,vg_uuid,lv_count", "labvg")
    assert group.vg_size * GIB == int(stated["vg_size"])
    assert group.vg_free_space * GIB == int(stated["vg_free"])
    assert group.vg_uuid == stated["vg_uuid"]
    assert sorted(one["name"] for one in group.pv_list) == sorted(disks)
    assert LVM.get_all_volume_groups("sudo", "labvg")[0]["uuid"] == stated["vg_uuid"]
    version = kernel.run("lvm", "version").split("LVM version:")[1].split()[0]
    major, minor, patch = (int(part) for part in version.partition("(")[0].split("."))
    assert LVM.get_lvm_version("sudo") == (major, minor, patch), version
    with fails_with(exception.VolumeGroupCreationFailed):
        LVM("labvg", "sudo", create_vg=True, physical_volumes=[lvm.disk("three")])
    with fails_with(exception.VolumeGroupNotFound):
        LVM("labvg2", "sudo")
    lvm.remove_all()


@scenario(
    "thick volume: data, snapshot, extension, rename, revert, removal",
    limit_s=SMOKE_S,
    multipath=None,
    groups=["smoke"],
)
def lvm_thick(lab: Lab) -> None:
    """The whole life of a volume."""
    with lvm.group(disks=2):
        group = lvm.view()
        with programs.counted() as started, lab.timed("create"):
            group.create_volume("a-volume", "100m")
        assert [each.name for each in started] == ["env", "lvcreate"], list(map(str, started))
        path = "/dev/labvg/a-volume"
        assert group.get_volume("a-volume") == {
            "vg": "labvg", "name": "a-volume", "size": "0.09765625",
        }  # fmt: skip
        assert int(lvm.volume("labvg/a-volume")["lv_size"]) == 100 * MIB
        assert lvm.mappings() == ["labvg-a--volume"]
        before = data.pattern("before", MIB)
        data.write(path, before, 4 * MIB)

        with lab.timed("snapshot"):
            group.create_lv_snapshot("a-snapshot", "a-volume")
        stated = lvm.volume("labvg/a-snapshot")
        assert (stated["origin"], stated["lv_size"]) == ("a-volume", str(100 * MIB)), stated
        assert group.lv_has_snapshot("a-volume")
        assert not group.lv_has_snapshot("a-snapshot")
        data.write(path, data.pattern("after", MIB), 4 * MIB)
        assert data.read("/dev/labvg/a-snapshot", MIB, 4 * MIB) == before

        with lab.timed("extend with snapshot"):
            group.extend_volume("a-volume", "200m")
        assert data.size(path) == 200 * MIB
        assert "labvg-a--snapshot" in lvm.mappings(), "the snapshot is inactive"
        assert data.read("/dev/labvg/a-snapshot", MIB, 4 * MIB) == before

        group.rename_volume("a-volume", "b-volume")
        path = "/dev/labvg/b-volume"
        with lab.timed("revert"):
            group.revert("labvg/a-snapshot")
        kernel.wait_for(lambda: lvm.volumes() == ["b-volume"], "the end of the merge", 60)
        assert data.read(path, MIB, 4 * MIB) == before

        with lab.timed("deactivate"):
            group.deactivate_lv("b-volume")
        assert lvm.mappings() == []
        group.activate_lv("b-volume", permanent=True)
        assert data.read(path, MIB, 4 * MIB) == before
        with programs.counted() as started, lab.timed("delete"):
            group.delete("b-volume")
        assert [each.name for each in started] == ["lvremove"], list(map(str, started))
        assert lvm.volumes() == []
        assert lvm.mappings() == []


@scenario(
    "thin pool and volumes: data, snapshots, free space, extension", limit_s=LONG_S, multipath=None
)
def lvm_thin(lab: Lab) -> None:
    """How full the pool is comes from the device-mapper, and is None where nobody knows."""
    with lvm.group():
        with lab.timed("pool"):
            group = lvm.view(lvm_type="thin")
        assert group.vg_thin_pool == "labvg-pool"
        assert lvm.view(lvm_type="thin").vg_thin_pool == "labvg-pool"
        group.create_volume("a", "2g", lv_type="thin")
        path = "/dev/labvg/a"
        assert data.size(path) == 2 * GIB
        before = data.pattern("before", 64 * MIB)
        data.write(path, before, 0)
        group.create_lv_snapshot("s", "a", lv_type="thin")
        assert not group.lv_has_snapshot("a")
        assert "labvg-s" not in lvm.mappings(), "thin snapshots are left out of activation"
        group.activate_lv("s", is_snapshot=True)
        data.write(path, data.pattern("after", MIB), 0)
        assert data.read("/dev/labvg/s", MIB, 0) == before[:MIB]

        group.update_volume_group_info()
        stated = lvm.volume("labvg/labvg-pool")
        size, percent = int(stated["lv_size"]), float(stated["data_percent"])
        assert percent > 5, stated
        assert group.vg_thin_pool_size * GIB == size
        assert group.vg_thin_pool_free_space is not None
        assert abs(group.vg_thin_pool_free_space - size * (1 - percent / 100) / GIB) < 0.006
        assert group.vg_provisioned_capacity == 4.0

        group.extend_volume("a", "+1g")
        assert data.size(path) == 3 * GIB
        for name in ("s", "a"):
            group.delete(name)
        group.deactivate_lv("labvg-pool")
        group.update_volume_group_info()
        assert group.vg_thin_pool_free_space is None
        assert group.vg_provisioned_capacity == 0.0
        group.delete("labvg-pool")
        assert lvm.volumes() == []


@scenario("two services make the same thin pool at once", multipath=None)
def lvm_thin_race(lab: Lab) -> None:
    """The loser finds the pool that the other made."""
    with lvm.group():

        def make() -> LVM:
            return lvm.view(lvm_type="thin")

        made = lab.side_by_side([make] * 3)
        assert [one.vg_thin_pool for one in made] == ["labvg-pool"] * 3
        assert lvm.volumes() == ["labvg-pool"]


@scenario("a mirrored volume over two disks", multipath=None)
def lvm_mirror(lab: Lab) -> None:
    """Its type is stated: raid1, the default of today, has no log on disk."""
    with lvm.group(disks=4):
        group = lvm.view()
        group.create_volume("m", "64m", mirror_count=1)
        assert lvm.volume("labvg/m")["lv_attr"][0] in "mM", lvm.volume("labvg/m")
        content = data.pattern("mirror", MIB)
        data.write("/dev/labvg/m", content)
        assert data.read("/dev/labvg/m", MIB) == content
        group.delete("m")
        assert lvm.volumes() == []


@scenario("a volume where another one left a file system", limit_s=LONG_S, multipath=None)
def lvm_signature(lab: Lab) -> None:
    """lvcreate finds the old signature, and nobody is there to answer its question."""
    with lvm.group():
        group = lvm.view()
        group.create_volume("a", "64m")
        kernel.load("ext4")
        kernel.run("mkfs.ext4", "-q", "-F", "/dev/labvg/a")
        group.delete("a")
        with lab.timed("create over a signature"):
            group.create_volume("a", "64m")
        assert os.path.exists("/dev/labvg/a")
        group.delete("a")


@scenario("sixteen volumes made, snapshot and removed side by side", limit_s=600, multipath=None)
def lvm_parallel(lab: Lab) -> None:
    """LVM's own locks queue the commands; nothing fails and nothing is left."""
    with lvm.group(size=2 * GIB):
        group = lvm.view()

        def one(number: int) -> None:
            group.create_volume(f"v{number}", "32m")
            group.create_lv_snapshot(f"s{number}", f"v{number}")
            content = data.pattern(f"v{number}", MIB)
            data.write(f"/dev/labvg/v{number}", content)
            assert data.read(f"/dev/labvg/v{number}", MIB) == content
            group.delete(f"s{number}")
            group.delete(f"v{number}")

        with lab.timed("16 lives"):
            lab.side_by_side([functools.partial(one, number) for number in range(16)])
        assert lvm.volumes() == []


@scenario("an unprivileged service: all of it through the helper", limit_s=LONG_S, multipath=None)
def lvm_as_service(lab: Lab) -> None:
    """The library's own way of becoming root."""
    with lvm.group():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                service.as_user()
                group = lvm.view(lvm_type="thin")
                group.create_volume("a", "64m", "thin")
                group.create_lv_snapshot("s", "a", "thin")
                group.update_volume_group_info()
                assert group.vg_provisioned_capacity > 0
                assert [one["name"] for one in LVM.get_lv_info("sudo", "labvg", "s")] == ["s"]
                for name in ("s", "a", "labvg-pool"):
                    group.delete(name)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0, "the service failed: see the log"
        assert lvm.volumes() == []
