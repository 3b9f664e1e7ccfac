# SPDX-License-Identifier: Apache-2.0
"""A volume group: finding or making it, its thin pool, what is reported of it."""

from __future__ import annotations

import pathlib

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.local_dev.lvm import LVM
from os_brick.privileged import rootwrap
from os_brick.testing import FakeHost
from os_brick.testing.lvm import GIB, MIB
from os_brick.tests.unit.local_dev.helpers import ENV, changes, make_lvm, reports, thin_lvm


# -- construction ----------------------------------------------------------------------------
def test_a_group_that_is_there(fake_host: FakeHost) -> None:
    fake_host.lvm.group("other", GIB)
    group = fake_host.lvm.group("vg", 10 * GIB, 4 * GIB + MIB)
    fake_host.lvm.volume(group, "one", 3 * GIB)

    lvm = make_lvm(fake_host)

    assert lvm.vg_name == "vg"
    assert (lvm.vg_size, lvm.vg_free_space, lvm.vg_lv_count) == (14.0, 11.0, 1)
    assert lvm.vg_uuid == group.uuid
    assert [(one["name"], one["vg"]) for one in lvm.pv_list] == [
        (disk.path, "vg") for disk in group.disks
    ]
    assert lvm.vg_thin_pool is None
    assert changes(fake_host) == []


def test_a_group_that_is_not_there(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg2")

    with pytest.raises(exception.VolumeGroupNotFound, match=r"Unable to find Volume Group: vg$"):
        make_lvm(fake_host)


def test_two_groups_of_one_name_are_none(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg")
    fake_host.lvm.group("vg")

    with pytest.raises(exception.VolumeGroupNotFound, match="More than one group"):
        make_lvm(fake_host)


def test_that_lvm_cannot_tell_is_not_taken_for_a_missing_group(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg")
    fake_host.faults.fail("vgs", code=5, times=9, err="  Input/output error\n")

    with pytest.raises(processutils.ProcessExecutionError, match="Input/output error"):
        make_lvm(fake_host)


def test_lvm_cannot_tell_for_a_moment(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg")
    fake_host.faults.fail("vgs", code=5, times=1)

    assert make_lvm(fake_host).vg_size == 10.0


def test_a_group_is_made_of_several_disks(fake_host: FakeHost) -> None:
    paths = [fake_host.lvm.disk(), fake_host.lvm.disk()]

    lvm = make_lvm(fake_host, create_vg=True, physical_volumes=paths)

    assert changes(fake_host) == [("vgcreate", "vg", *paths)]
    assert lvm.vg_size == 20.0


def test_a_group_that_cannot_be_made(fake_host: FakeHost) -> None:
    with pytest.raises(exception.VolumeGroupCreationFailed, match=r"Volume Group: vg$"):
        make_lvm(fake_host, create_vg=True, physical_volumes=["/dev/nothing"])


@pytest.mark.parametrize("paths", [["-f"], [""], [7]])
def test_disks_that_are_no_paths(fake_host: FakeHost, paths: list[str]) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="physical_volumes"):
        make_lvm(fake_host, create_vg=True, physical_volumes=paths)
    assert changes(fake_host) == []


@pytest.mark.parametrize("name", ["-a", "a/b", "", 'x" || vg_name=~"', "a b", None])
def test_names_that_are_none_are_refused_before_anything_is_done(
    fake_host: FakeHost, name: str
) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="volume group"):
        make_lvm(fake_host, name)
    assert fake_host.started == []


def test_a_thin_pool_is_made_and_activated(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg", 10 * GIB)

    lvm = make_lvm(fake_host, lvm_type="thin")

    assert lvm.vg_thin_pool == "vg-pool"
    assert changes(fake_host) == [
        (*ENV, "lvcreate", "-T", "-l", "100%FREE", "vg/vg-pool"),
        ("lvchange", "-a", "y", "--yes", "-K", "vg/vg-pool"),
    ]


def test_a_thin_pool_that_is_there_is_only_activated(fake_host: FakeHost) -> None:
    group = fake_host.lvm.group("vg")
    pool = fake_host.lvm.volume(group, "vg-pool", 9 * GIB, kind="t")

    lvm = make_lvm(fake_host, lvm_type="thin")

    assert lvm.vg_thin_pool == "vg-pool"
    assert [words[0] for words in changes(fake_host)] == ["lvchange"]
    assert pool.mapping is not None


def test_another_service_makes_the_thin_pool_meanwhile(fake_host: FakeHost) -> None:
    group = fake_host.lvm.group("vg")
    fake_host.faults.slow("lvcreate", seconds=5.0)
    fake_host.at(2.0, lambda: fake_host.lvm.volume(group, "vg-pool", 10 * GIB, kind="t"))

    lvm = make_lvm(fake_host, lvm_type="thin")

    assert lvm.vg_thin_pool == "vg-pool"


def test_a_thin_pool_that_cannot_be_made(fake_host: FakeHost) -> None:
    group = fake_host.lvm.group("vg")
    fake_host.lvm.volume(group, "all", 10 * GIB)

    with pytest.raises(processutils.ProcessExecutionError, match="Insufficient"):
        make_lvm(fake_host, lvm_type="thin")


# -- LV-01 prefix ----------------------------------------------------------------------------
def test_each_object_has_its_own_prefix(fake_host: FakeHost, tmp_path: pathlib.Path) -> None:
    fake_host.lvm.group("vg")
    fake_host.lvm.group("plain")
    conf = tmp_path / "lvm.conf"
    conf.write_text("")
    whole = (*ENV, f"LVM_SYSTEM_DIR={tmp_path}", "LVM_SUPPRESS_FD_WARNINGS=1")

    special = make_lvm(fake_host, lvm_conf=str(conf), suppress_fd_warn=True)
    assert all(words[: len(whole)] == whole for words in fake_host.started)
    plain = make_lvm(fake_host, "plain")
    fake_host.forget()
    special.create_volume("a", "1g")
    special.get_volumes()
    assert all(words[: len(whole)] == whole for words in fake_host.started)
    fake_host.forget()
    plain.create_volume("a", "1g")
    plain.update_volume_group_info()

    assert [words[:3] for words in fake_host.started] == [(*ENV, "lvcreate"), (*ENV, "vgs")]
    assert list(ENV) == LVM.LVM_CMD_PREFIX


@pytest.mark.parametrize("suppress", [False, True])
def test_an_lvm_conf_that_is_not_there_is_left_out(fake_host: FakeHost, suppress: bool) -> None:
    fake_host.lvm.group("vg")

    lvm = make_lvm(fake_host, lvm_conf="/no/such/lvm.conf", suppress_fd_warn=suppress)

    assert [*ENV, *(["LVM_SUPPRESS_FD_WARNINGS=1"] if suppress else [])] == lvm.LVM_CMD_PREFIX


# -- section 3: reports ----------------------------------------------------------------------
def test_sizes_of_volumes_are_exact_text(fake_host: FakeHost) -> None:
    group = fake_host.lvm.group("vg")
    fake_host.lvm.volume(group, "even", 2 * GIB)
    fake_host.lvm.volume(group, "odd", GIB + 4 * MIB)
    lvm = make_lvm(fake_host)

    assert lvm.get_volumes() == [
        {"vg": "vg", "name": "even", "size": "2.00"},
        {"vg": "vg", "name": "odd", "size": "1.00390625"},
    ]
    assert lvm.get_volume("odd") == {"vg": "vg", "name": "odd", "size": "1.00390625"}
    assert lvm.get_volumes("even") == [{"vg": "vg", "name": "even", "size": "2.00"}]


def test_a_volume_that_is_not_there(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg")
    lvm = make_lvm(fake_host)
    fake_host.forget()

    assert lvm.get_volume("nothing") is None
    assert lvm.get_volumes("nothing") == []
    assert len(fake_host.started) == 2  # one program tells it


def test_the_whole_group_vanishes(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg")
    lvm = make_lvm(fake_host)
    fake_host.lvm.groups.clear()

    assert lvm.get_volumes() == []
    assert lvm.get_physical_volumes() == []
    with pytest.raises(exception.VolumeGroupNotFound):
        lvm.update_volume_group_info()


def test_volumes_that_cannot_be_told_are_not_taken_for_none(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg")
    lvm = make_lvm(fake_host)
    fake_host.faults.fail("lvs", code=5, times=9, err="  device not found: I/O error\n")

    with pytest.raises(processutils.ProcessExecutionError, match="I/O error"):
        lvm.get_volume("one")


def test_hidden_and_historical_volumes_do_not_show(fake_host: FakeHost) -> None:
    group = fake_host.lvm.group("vg")
    for name in ("[lvol0_pmspare]", "-gone", "one"):
        fake_host.lvm.volume(group, name)

    assert [one["name"] for one in make_lvm(fake_host).get_volumes()] == ["one"]


def test_disks_are_those_of_the_group(fake_host: FakeHost) -> None:
    fake_host.lvm.group("other", GIB)
    group = fake_host.lvm.group("vg", 2 * GIB, 3 * GIB)
    group.disks[0].used = GIB
    group.disks[1].missing = True
    lvm = make_lvm(fake_host)

    assert lvm.get_physical_volumes() == [
        {"vg": "vg", "name": group.disks[0].path, "size": 2.0, "available": 1.0},
        {"vg": "vg", "name": "[unknown]", "size": 3.0, "available": 0.0},
    ]
    assert lvm.pv_list == lvm.get_physical_volumes()


def test_warnings_before_a_report_do_no_harm(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg")
    fake_host.faults.mumble(
        "vgs",
        out="  WARNING: {odd} metadata\n",
        err="  File descriptor 7 (pipe:[1]) leaked on vgs invocation.\n",
    )

    assert make_lvm(fake_host).vg_size == 10.0


@pytest.mark.parametrize("said", ["", "  vg 10.00 2.00\n", '{"report": 5}', "{"])
def test_a_report_that_is_none_is_an_error(fake_host: FakeHost, said: str) -> None:
    fake_host.lvm.group("vg")
    fake_host.faults.fail("vgs", code=0, out=said)

    with pytest.raises(exception.BrickException, match="report cannot be read"):
        make_lvm(fake_host)


def test_group_information_without_a_pool_takes_one_program(fake_host: FakeHost) -> None:
    group = fake_host.lvm.group("vg")
    lvm = make_lvm(fake_host)
    fake_host.lvm.volume(group, "one", GIB)
    fake_host.forget()

    lvm.update_volume_group_info()

    assert (lvm.vg_free_space, lvm.vg_lv_count) == (9.0, 1)
    assert len(fake_host.started) == 1
    assert "--readonly" in fake_host.started[0]


def test_group_information_with_a_pool(fake_host: FakeHost) -> None:
    lvm = thin_lvm(fake_host)
    (group,) = fake_host.lvm.groups
    group.volumes["vg-pool"].percent = "12.34"
    for number in range(3):  # 4 MiB each are lost where two decimals of GiB are summed
        fake_host.lvm.volume(group, f"thin-{number}", GIB + 4 * MIB, kind="V", pool="vg-pool")

    lvm.update_volume_group_info()

    assert lvm.vg_thin_pool_size == 10.0
    assert lvm.vg_thin_pool_free_space == 8.77
    assert lvm.vg_provisioned_capacity == 3.01
    # The device-mapper is asked only without it.
    assert ["--readonly" in words for words in reports(fake_host)] == [True, False]


def test_how_full_an_inactive_pool_is_nobody_knows(fake_host: FakeHost) -> None:
    lvm = thin_lvm(fake_host)
    lvm.deactivate_lv("vg-pool")

    lvm.update_volume_group_info()

    assert lvm.vg_thin_pool_size == 10.0
    assert lvm.vg_thin_pool_free_space is None


def test_a_pool_that_was_removed_has_no_size(fake_host: FakeHost) -> None:
    lvm = thin_lvm(fake_host)
    lvm.delete("vg-pool")

    lvm.update_volume_group_info()

    assert (lvm.vg_thin_pool_size, lvm.vg_thin_pool_free_space) == (0.0, 0.0)


# -- static methods: the library's own execute function --------------------------------------
@pytest.fixture
def own_execute(fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """The library's own function runs the fake host's programs."""
    monkeypatch.setattr(rootwrap, "execute", fake_host.execute)
    return fake_host


def test_static_reports(own_execute: FakeHost) -> None:
    group = own_execute.lvm.group("vg", 2 * GIB)
    own_execute.lvm.group("other", 4 * GIB)
    own_execute.lvm.volume(group, "one", GIB)

    assert LVM.get_lv_info("sudo") == [{"vg": "vg", "name": "one", "size": "1.00"}]
    assert LVM.get_lv_info("sudo", "vg", "one") == LVM.get_lv_info("sudo", vg_name="vg")
    assert LVM.get_lv_info("sudo", "vg", "two") == []
    assert LVM.get_lv_info("sudo", "nothing") == []
    assert LVM.get_all_volume_groups("sudo", "vg") == [
        {"name": "vg", "size": 2.0, "available": 1.0, "lv_count": 1, "uuid": group.uuid}
    ]
    assert [one["name"] for one in LVM.get_all_volume_groups("sudo")] == ["vg", "other"]
    assert [one["vg"] for one in LVM.get_all_physical_volumes("sudo")] == ["vg", "other"]
    assert [one["size"] for one in LVM.get_all_physical_volumes("sudo", "other")] == [4.0]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("2.03.16(2) (2022-05-18)", (2, 3, 16)),
        ("2.02.176(2) (2017-11-03)", (2, 2, 176)),
        ("2.02.98", (2, 2, 98)),
    ],
)
def test_version(own_execute: FakeHost, text: str, version: tuple[int, int, int]) -> None:
    own_execute.lvm.group("vg")
    own_execute.lvm.version = text
    lvm = make_lvm(own_execute)

    assert LVM.get_lvm_version("sudo") == version
    assert own_execute.started[-1] == (*ENV, "vgs", "--version")
    assert LVM.supports_thin_provisioning("sudo")
    assert lvm.supports_snapshot_lv_activation
    assert lvm.supports_lvchange_ignoreskipactivation is (version >= (2, 2, 99))
    assert lvm.supports_full_pool_create is (version >= (2, 2, 115))


def test_a_version_that_cannot_be_read(own_execute: FakeHost) -> None:
    own_execute.lvm.version = "unknown"

    with pytest.raises(exception.BrickException, match="Cannot parse LVM version"):
        LVM.get_lvm_version("sudo")


# -- LV-19 mirrors ---------------------------------------------------------------------------
def test_room_for_mirrors(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg", 8 * GIB, GIB)
    lvm = make_lvm(fake_host)

    assert lvm.vg_mirror_size(2) == 3.0
    lvm.pv_list = [{"available": 8.99}, {"available": 1.0}, {"available": 1.0}, {"available": 0.0}]
    assert lvm.vg_mirror_free_space(1) == pytest.approx(2.0)
    lvm.pv_list = [{"available": 2.0}] * 3
    assert lvm.vg_mirror_free_space(1) == pytest.approx(2.0)
    assert lvm.vg_mirror_free_space(3) == 0.0


# -- a service's own execute function --------------------------------------------------------
def test_everything_goes_through_the_execute_function_of_the_service(fake_host: FakeHost) -> None:
    fake_host.lvm.group("vg")
    seen: list[dict[str, object]] = []

    def execute(*words: str, **keywords: object) -> tuple[str, str]:
        seen.append(keywords)
        return fake_host.execute(*words, **keywords)

    lvm = LVM("vg", "sudo me", lvm_type="thin", executor=execute, host=fake_host.host)
    lvm.create_volume("one", "1g", "thin")
    lvm.update_volume_group_info()
    lvm.delete("one")

    assert len(seen) == len(fake_host.started)
    assert {(one["run_as_root"], one["root_helper"]) for one in seen} == {(True, "sudo me")}
    assert all(one["timeout"] for one in seen)


# -- what subclasses of services call --------------------------------------------------------
def test_existence_and_uuid(fake_host: FakeHost) -> None:
    group = fake_host.lvm.group("vg")
    lvm = make_lvm(fake_host)

    assert lvm._vg_exists()
    assert lvm._get_vg_uuid() == [group.uuid]
    fake_host.lvm.groups.clear()
    assert not lvm._vg_exists()
    assert lvm._get_vg_uuid() == []


def test_free_space_of_a_pool(fake_host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    lvm = thin_lvm(fake_host)
    fake_host.lvm.groups[0].volumes["vg-pool"].percent = "25.00"

    assert lvm._get_thin_pool_free_space("vg", "vg-pool") == 7.5
    assert lvm._get_thin_pool_free_space("vg", "nothing") is None
    assert lvm._calculate_thin_pool_size() == ["-l", "100%FREE"]
    fake_host.faults.fail("lvs", code=5, err="  I/O error\n")
    assert lvm._get_thin_pool_free_space("vg", "vg-pool") is None
    assert "I/O error" in caplog.text


def test_waiting_for_a_deactivation(fake_host: FakeHost) -> None:
    group = fake_host.lvm.group("vg")
    volume = fake_host.lvm.volume(group, "_snapshot1")
    fake_host.lvm.activate(group, volume)
    lvm = make_lvm(fake_host)

    with pytest.raises(exception.VolumeNotDeactivated, match="_snapshot1"):
        lvm._wait_for_volume_deactivation("snapshot1")
    fake_host.lvm.deactivate(volume)
    lvm._wait_for_volume_deactivation("snapshot1")
