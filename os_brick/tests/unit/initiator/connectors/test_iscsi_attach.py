# SPDX-License-Identifier: Apache-2.0
"""Attaching iSCSI volumes."""

from __future__ import annotations

import copy
import json
import logging
import os
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator import utils as initiator_utils
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import (
    changes,
    commands,
    disk_at,
    disk_names,
)

BOTH = pytest.mark.parametrize("multipath", [False, True])


# -- results -------------------------------------------------------------------------------
def test_single_path_gives_the_disk(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target().lun(1)
    info = fake_host.connector().connect_volume(volume.properties)
    assert info == {"type": "block", "path": "/dev/sda", "scsi_wwn": volume.wwid}


@pytest.mark.parametrize("friendly", [False, True])
def test_multipath_gives_the_map(fake_host: FakeHost, friendly: bool) -> None:
    fake_host.multipathd.user_friendly_names = friendly
    volume = fake_host.iscsi_target(portals=2).lun(1)
    info = fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    assert info == {
        "type": "block",
        "path": "/dev/dm-0",
        "scsi_wwn": volume.wwid,
        "multipath_id": volume.wwid,
    }
    assert len(fake_host.multipathd.maps()[0].slaves) == 2


@BOTH
def test_a_connected_volume_is_connected_again_to_the_same_device(
    fake_host: FakeHost, multipath: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    first = connector.connect_volume(volume.properties)
    there = fake_host.inventory()
    fake_host.forget()
    assert connector.connect_volume(volume.properties) == first
    assert fake_host.inventory() == there
    assert commands(fake_host, "iscsiadm") == []


@BOTH
def test_the_callers_dictionary_is_not_changed(fake_host: FakeHost, multipath: bool) -> None:
    volume = fake_host.iscsi_target(portals=2, chap=("user", "s3cret")).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    properties = volume.connection(encrypted=True)
    before = copy.deepcopy(properties)
    info = connector.connect_volume(properties)
    kept = copy.deepcopy(info)
    connector.extend_volume(properties)
    connector.disconnect_volume(properties, info)
    assert properties == before
    assert info == kept


def test_results_are_plain_data(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    info = fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    assert json.loads(json.dumps(info)) == info


# -- properties ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "form",
    [
        {"plural": False},
        {"luns": False},
        {"target_luns": []},
        {"text_lun": True},
        {"suffix": ",1"},
        {"target_lun": None, "plural": False},
    ],
    ids=str,
)
@BOTH
def test_every_form_of_properties_attaches_and_detaches(
    fake_host: FakeHost, form: dict[str, object], multipath: bool
) -> None:
    lun = 0 if "target_lun" in form else 1
    volume = fake_host.iscsi_target(portals=2).lun(lun)
    connector = fake_host.connector(use_multipath=multipath)
    properties = volume.connection(**form)  # type: ignore[arg-type]
    info = connector.connect_volume(properties)
    assert info["scsi_wwn"] == volume.wwid
    assert len(fake_host.sessions.all()) == (2 if multipath else 1)
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("spelling", [str.upper, lambda text: text.replace("::", ":0:0:0:0:0:")])
@BOTH
def test_ipv6_portals_are_compared_by_value(
    fake_host: FakeHost, spelling: object, multipath: bool
) -> None:
    volume = fake_host.iscsi_target(["[2001:db8::1]:3260", "[2001:db8::2]:3260"]).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    properties = volume.connection(spelling=spelling)  # type: ignore[arg-type]
    info = connector.connect_volume(properties)
    assert connector.connect_volume(properties) == info
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


@BOTH
def test_portals_may_be_host_names(fake_host: FakeHost, multipath: bool) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.network.names["ARRAY1.example"] = fake_host.network.names["array1.example"] = [
        "10.0.0.1"
    ]
    fake_host.network.names["array2.example"] = ["10.0.0.2"]
    properties = volume.connection(
        target_portal="ARRAY1.example:3260",
        target_portals=["ARRAY1.example:3260", "array2.example:3260"],
    )
    connector = fake_host.connector(use_multipath=multipath)
    info = connector.connect_volume(properties)
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


def test_different_luns_and_names_by_path(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2, shared_iqn=False).lun([1, 7])
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert disk_at(fake_host, "10.0.0.1").device.hctl.lun == 1  # type: ignore[union-attr]
    assert disk_at(fake_host, "10.0.0.2").device.hctl.lun == 7  # type: ignore[union-attr]
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"target_lun": "one"},
        {"target_lun": -1},
        {"target_portal": "10.0.0.1:port"},
        {"target_portal": None},
        {"target_iqn": "../../etc"},
        {"target_iqn": None},
        {"addressing_mode": "SAM9"},
        {"target_lun": 16384, "addressing_mode": "SAM2"},
        {"auth_method": "CHAP", "auth_username": "user"},
    ],
    ids=str,
)
def test_unusable_properties_are_refused_by_name(
    fake_host: FakeHost, wrong: dict[str, object]
) -> None:
    volume = fake_host.iscsi_target().lun(1)
    with pytest.raises(exception.InvalidParameterValue) as caught:
        fake_host.connector().connect_volume(volume.connection(plural=False, **wrong))  # type: ignore[arg-type]
    assert next(iter(wrong)) in str(caught.value) or "auth_password" in str(caught.value)
    assert fake_host.started == []
    assert fake_host.leftovers() == []


def test_lists_of_different_length_are_refused(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    for key in ("target_iqns", "target_luns"):
        with pytest.raises(exception.InvalidParameterValue, match=key):
            fake_host.connector().connect_volume(
                volume.connection(**{key: volume.properties[key][:1]})
            )


# -- logging in ----------------------------------------------------------------------------
def test_few_programs_for_a_log_in_and_none_when_there_is_a_session(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    first, second = target.lun(1), target.lun(2)
    connector = fake_host.connector()
    connector.connect_volume(first.properties)
    assert len(fake_host.started) <= 4
    fake_host.forget()
    connector.connect_volume(second.properties)
    assert fake_host.started == []
    assert len(fake_host.sessions.all()) == 1


def test_programs_started_do_not_depend_on_what_else_is_attached(fake_host: FakeHost) -> None:
    others = fake_host.iscsi_target(portals=2)
    connector = fake_host.connector(use_multipath=True)
    volume = fake_host.iscsi_target(portals=2).lun(1)
    counts = []
    for number in range(2):
        fake_host.forget()
        info = connector.connect_volume(volume.properties)
        connector.disconnect_volume(volume.properties, info)
        counts.append(len(fake_host.started))
        if number == 0:
            for lun in range(20):
                connector.connect_volume(others.lun(lun).properties)
    assert counts[1] <= counts[0]


def test_a_record_is_made_and_a_session_is_automatic_and_scans_by_hand(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target().lun(1)
    fake_host.connector().connect_volume(volume.properties)
    (record,) = fake_host.node_records.nodes.values()
    assert record.settings["node.startup"] == "automatic"
    assert record.settings["node.session.scan"] == "manual"
    assert not fake_host.sessions.all()[0].scans


def test_an_existing_record_is_used(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target().lun(1)
    record = fake_host.node_records.create(volume.target.iqn, "10.0.0.1", 3260, 1, "default")
    record.settings["node.session.queue_depth"] = "64"
    fake_host.connector().connect_volume(volume.properties)
    assert commands(fake_host, "--op", "new") == []
    (record,) = fake_host.node_records.nodes.values()
    assert record.settings["node.session.queue_depth"] == "64"


def test_a_session_that_cannot_be_told_from_sysfs_is_no_reason_for_a_second(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target().lun(1)
    fake_host.remember()
    fake_host.faults.unreadable("sys/class/iscsi_session*")
    with pytest.raises((OSError, exception.BrickException)):
        fake_host.connector().connect_volume(volume.properties)
    fake_host.faults.mend()
    assert fake_host.sessions.all() == []


@pytest.mark.parametrize("step", ["new", "update"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_busy_record_database_is_tried_again(fake_host: FakeHost, step: str, times: int) -> None:
    fake_host.faults.fail("iscsiadm", "--op", step, code=6, times=times)
    target = fake_host.iscsi_target()
    volume, _other = target.lun(1), target.lun(2)
    connector = fake_host.connector()
    info = connector.connect_volume(volume.properties)
    assert info["path"] == "/dev/sda"
    fake_host.pass_time(5)
    assert disk_names(fake_host) == ["sda"], "and the session does not scan by itself"
    assert initiator_utils.ISCSI_SUPPORTS_MANUAL_SCAN
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("step", ["new", "update"])
def test_a_database_that_stays_busy_ends_the_attach(fake_host: FakeHost, step: str) -> None:
    fake_host.faults.fail("iscsiadm", "--op", step, code=6, times=100)
    volume = fake_host.iscsi_target().lun(1)
    with pytest.raises(exception.VolumeDeviceNotFound):
        fake_host.connector().connect_volume(volume.properties)
    assert fake_host.now < 60
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("step", ["--op new", "--op update", "--login", "--op delete", "--logout"])
@pytest.mark.parametrize("code", [1, 4, 5, 6, 8, 9, 11, 15, 18, 19, 20, 21, 24, 28, 99, 255])
def test_every_exit_code_of_every_step_ends_the_attach_in_bounded_time(
    fake_host: FakeHost, step: str, code: int
) -> None:
    fake_host.faults.fail("iscsiadm", *step.split(), code=code, times=1000)
    volume = fake_host.iscsi_target().lun(1)
    path, text = "", ""
    try:
        path = fake_host.connector().connect_volume(volume.properties)["path"]
    except exception.VolumeDeviceNotFound as exc:
        text = str(exc)
    assert fake_host.now < 600
    assert (path == "/dev/sda") != ("10.0.0.1:3260" in text)
    if text:
        assert step not in ("--op delete", "--logout")
        fake_host.faults.mend()
        assert not any(one.startswith(("session", "device")) for one in fake_host.leftovers())


def test_session_exists_is_success(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target().lun(1)
    fake_host.faults.fail("iscsiadm", "--login", code=15, times=1)

    def somebody_else_logs_in() -> None:
        fake_host.sessions.create(
            volume.target.iqn, volume.target.portals[0], volume.target, 0, scans=False
        )

    fake_host.at(0.008, somebody_else_logs_in)
    assert fake_host.connector().connect_volume(volume.properties)["path"] == "/dev/sda"
    assert len(fake_host.sessions.all()) == 1


def test_credentials_reach_the_target(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(chap=("user", "s3cret")).lun(1)
    assert fake_host.connector().connect_volume(volume.properties)["scsi_wwn"] == volume.wwid


def test_wrong_credentials_fail_with_a_hint_and_leave_nothing(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(chap=("user", "s3cret")).lun(1)
    with pytest.raises(exception.VolumeDeviceNotFound) as caught:
        fake_host.connector().connect_volume(volume.connection(auth_password="wr0ng"))
    text = str(caught.value)
    assert "10.0.0.1:3260" in text
    assert "24" in text
    assert "LUN 1" in text
    assert "wr0ng" not in text
    assert fake_host.leftovers() == []


def test_a_log_in_that_hangs_is_stopped(fake_host: FakeHost) -> None:
    fake_host.faults.hang("iscsiadm", "--login")
    volume = fake_host.iscsi_target().lun(1)
    with pytest.raises(exception.BrickException):
        fake_host.connector().connect_volume(volume.properties)
    assert fake_host.now <= 700
    assert [one for one in fake_host.leftovers() if not one.startswith("node record")] == []


@pytest.mark.parametrize("code", [1, 9, 20, 255])
def test_values_that_a_record_does_not_get_end_the_attach(fake_host: FakeHost, code: int) -> None:
    fake_host.faults.fail("iscsiadm", "--op", "update", code=code, times=1)
    volume = fake_host.iscsi_target().lun(1)
    with pytest.raises(exception.VolumeDeviceNotFound, match=f"session.scan.*exit code {code}"):
        fake_host.connector().connect_volume(volume.properties)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("step", ["new", "update"])
def test_a_record_command_that_hangs_is_a_failure_not_success(
    fake_host: FakeHost, step: str
) -> None:
    fake_host.faults.hang("iscsiadm", "--op", step)
    volume = fake_host.iscsi_target(chap=("user", "s3cret")).lun(1)
    with pytest.raises(exception.BrickException):
        fake_host.connector().connect_volume(volume.properties)
    assert fake_host.now <= 600
    fake_host.faults.mend()
    assert fake_host.leftovers() == []


def test_without_iscsid_the_attach_ends_and_says_what_to_do(fake_host: FakeHost) -> None:
    fake_host.iscsid.running = False
    volume = fake_host.iscsi_target().lun(1)
    with pytest.raises(exception.VolumeDeviceNotFound, match="iscsid"):
        fake_host.connector().connect_volume(volume.properties)
    assert fake_host.now < 60
    assert fake_host.leftovers() == []


@pytest.mark.parametrize(
    "answer",
    [
        {"code": 7},
        {"code": 255, "err": "iscsiadm: Cannot modify node.session.scan. Invalid param name.\n"},
    ],
    ids=["by code", "by text"],
)
def test_an_open_iscsi_without_manual_scans_still_works(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    monkeypatch.setattr(initiator_utils, "ISCSI_SUPPORTS_MANUAL_SCAN", True)
    fake_host.faults.fail("iscsiadm", "--op", "update", "node.session.scan", **answer, times=1000)
    volume = fake_host.iscsi_target().lun(1)
    connector = fake_host.connector()
    info = connector.connect_volume(volume.properties)
    assert info["path"] == "/dev/sda"
    assert not initiator_utils.ISCSI_SUPPORTS_MANUAL_SCAN
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


# -- scanning ------------------------------------------------------------------------------
def test_only_the_lun_that_was_asked_for_appears(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    volumes = [target.lun(number) for number in range(5)]
    fake_host.connector().connect_volume(volumes[3].properties)
    fake_host.pass_time(60)
    assert disk_names(fake_host) == ["sda"]
    assert changes(fake_host, "scan") == [("host2", "- - 3")]


def test_scans_go_to_the_sessions_own_host_and_known_target(fake_host: FakeHost) -> None:
    other = fake_host.iscsi_target().lun(1)
    target = fake_host.iscsi_target()
    first, second = target.lun(1), target.lun(2)
    connector = fake_host.connector()
    for volume in (other, first, second):
        connector.connect_volume(volume.properties)
    assert changes(fake_host, "scan") == [
        ("host2", "- - 1"),
        ("host3", "- - 1"),
        ("host3", "0 0 2"),
    ]


@pytest.mark.parametrize("late_s", [0.1, 1, 5, 20])
@BOTH
def test_a_disk_that_is_late_is_found_without_another_scan_before_its_time(
    fake_host: FakeHost, late_s: float, multipath: bool
) -> None:
    fake_host.delays.disk_s = late_s
    volume = fake_host.iscsi_target().lun(1)
    info = fake_host.connector(use_multipath=multipath).connect_volume(volume.properties)
    assert info["scsi_wwn"] == volume.wwid
    assert late_s <= fake_host.now < late_s + 1
    if late_s < 4:
        assert len(changes(fake_host, "scan")) == 1


@pytest.mark.parametrize("mapped_s", [2, 6, 20])
@BOTH
def test_a_lun_that_is_mapped_late_is_found_by_a_later_scan(
    fake_host: FakeHost, mapped_s: float, multipath: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    volume.map_after(mapped_s)
    connector = fake_host.connector(use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    assert info["scsi_wwn"] == volume.wwid


@pytest.mark.parametrize(("attempts", "budget_s"), [(0, 10), (1, 20), (3, 60)])
def test_scan_attempts_bound_the_wait(fake_host: FakeHost, attempts: int, budget_s: float) -> None:
    volume = fake_host.iscsi_target().lun(1, mapped=False)
    with pytest.raises(exception.VolumeDeviceNotFound):
        fake_host.connector(device_scan_attempts=attempts).connect_volume(volume.properties)
    assert 2 < fake_host.now < budget_s
    assert len(changes(fake_host, "scan")) == attempts + 2


def test_a_scan_that_fails_is_logged_and_tried_again(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.faults.failing_writes["scan"] = 5
    fake_host.at(3, fake_host.faults.failing_writes.clear)
    volume = fake_host.iscsi_target().lun(1)
    assert fake_host.connector().connect_volume(volume.properties)["path"] == "/dev/sda"
    assert "can" in caplog.text
    assert any(record.levelno >= logging.WARNING for record in caplog.records)


def test_a_scan_that_hangs_ends_with_the_call(fake_host: FakeHost) -> None:
    fake_host.faults.slow_writes["scan"] = float("inf")
    volume = fake_host.iscsi_target().lun(1)
    with pytest.raises(exception.BrickException):
        fake_host.connector().connect_volume(volume.properties)
    assert fake_host.now <= 700
    fake_host.faults.mend()
    assert fake_host.leftovers() == []


@pytest.mark.parametrize(
    ("number", "addressing", "scanned"),
    [
        (1, None, 1),
        (1, "transparent", 1),
        (1, "SAM", 1),
        (1, "SAM2", 1),
        (1, "SAM3-flat", 16385),
        (256, None, 256),
        (256, "SAM2", 16640),
        (256, "SAM3-flat", 16640),
    ],
)
def test_luns_are_scanned_matched_and_removed_in_the_arrays_coding(
    fake_host: FakeHost, number: int, addressing: str | None, scanned: int
) -> None:
    volume = fake_host.iscsi_target().lun(number, addressing=addressing)
    connector = fake_host.connector()
    info = connector.connect_volume(volume.properties)
    assert changes(fake_host, "scan") == [("host2", f"- - {scanned}")]
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_lun_of_a_target_with_three_hundred(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    volumes = [target.lun(number, addressing="SAM2") for number in range(300)]
    connector = fake_host.connector()
    info = connector.connect_volume(volumes[256].properties)
    assert info["scsi_wwn"] == volumes[256].wwid
    assert len(fake_host.disks()) == 1
    connector.disconnect_volume(volumes[256].properties, info)
    assert fake_host.leftovers() == []


def test_a_disk_that_came_under_another_coding_of_its_number_is_the_same(
    fake_host: FakeHost,
) -> None:
    target = fake_host.iscsi_target()
    volume = target.lun(1, addressing="SAM", reported="SAM3-flat")
    fake_host.sessions.create(target.iqn, target.portals[0], target, 0)  # scans by itself: 16385
    fake_host.pass_time(1)
    connector = fake_host.connector()
    info = connector.connect_volume(volume.properties)
    assert disk_names(fake_host) == ["sda"]
    assert info["path"] == "/dev/sda"
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.disks() == []


# -- single path ---------------------------------------------------------------------------
def test_single_path_uses_one_portal_only(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=3).lun(1)
    fake_host.connector().connect_volume(volume.properties)
    assert [one.portal.address for one in fake_host.sessions.all()] == ["10.0.0.1"]
    fake_host.pass_time(300)
    assert len(fake_host.sessions.all()) == 1


@pytest.mark.parametrize("fault", ["silent", "refuse"])
def test_single_path_goes_on_to_the_next_portal(fake_host: FakeHost, fault: str) -> None:
    volume = fake_host.iscsi_target(portals=3).lun(1)
    getattr(volume.target.portals[0], fault)()
    connector = fake_host.connector()
    info = connector.connect_volume(volume.properties)
    assert [one.portal.address for one in fake_host.sessions.all()] == ["10.0.0.2"]
    assert fake_host.now < 30
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_single_path_leaves_nothing_on_a_portal_that_has_not_the_lun(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(portals=2)
    volume = target.lun(1, mapped=False)
    target.show([99, 1], volume.unit)  # mapped on the second portal only
    fake_host.connector(device_scan_attempts=0).connect_volume(volume.properties)
    assert [one.portal.address for one in fake_host.sessions.all()] == ["10.0.0.2"]
    assert [one.address for one in fake_host.node_records.nodes.values()] == ["10.0.0.2"]


def test_a_volume_without_identity_can_be_attached(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target().lun(1, wwid="", serial="")
    info = fake_host.connector().connect_volume(volume.properties)
    assert info == {"type": "block", "path": "/dev/sda", "scsi_wwn": ""}


@pytest.mark.parametrize(
    "wwid",
    ["36001405aabbccdd0011223344556677a", "20011223344556677", "8iqn.name:7", "1ACME disk 7"],
)
@BOTH
def test_every_kind_of_identity(fake_host: FakeHost, wwid: str, multipath: bool) -> None:
    volume = fake_host.iscsi_target().lun(1, wwid=wwid)
    info = fake_host.connector(use_multipath=multipath).connect_volume(volume.properties)
    assert info["scsi_wwn"] == wwid.replace(" ", "_")


# -- multipath -----------------------------------------------------------------------------
def test_paths_come_up_side_by_side(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=8).lun(1)
    for portal in volume.target.portals:
        portal.login_s = 5
    fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    assert fake_host.now < 12
    assert len(fake_host.multipathd.maps()[0].slaves) == 8


@pytest.mark.parametrize("fault", ["silent", "refuse", "hang"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_dead_portal_keeps_nobody(fake_host: FakeHost, fault: str, which: int) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    getattr(volume.target.portals[which], fault)()
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert info["path"] == "/dev/dm-0"
    assert fake_host.now < 12
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers(settle_s=400) == []


def test_missing_paths_are_named_in_the_log(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    volume = fake_host.iscsi_target(portals=3).lun(1)
    volume.target.portals[1].silent()
    fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert any("10.0.0.2:3260" in text for text in warnings)
    assert not any("10.0.0.3:3260" in text and "10.0.0.2" not in text for text in warnings)


@pytest.mark.parametrize("back_s", [20, 60])
def test_a_late_path_joins_the_map(fake_host: FakeHost, back_s: float) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    volume.target.portals[1].silent()
    fake_host.at(back_s, volume.target.portals[1].restore)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert len(fake_host.multipathd.maps()[0].slaves) == 1
    fake_host.pass_time(back_s + 30)
    assert len(fake_host.multipathd.maps()[0].slaves) == 2
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("fault", ["silent", "hang"])
def test_a_log_in_under_way_is_not_left_over_when_the_volume_is_detached_first(
    fake_host: FakeHost, fault: str
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    getattr(volume.target.portals[1], fault)()
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.after(30, volume.target.portals[1].restore)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers(settle_s=600) == []


def test_a_log_in_that_ends_soon_is_taken_back_before_the_detach_returns(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    volume.target.portals[1].silent()
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    volume.target.portals[1].restore()
    fake_host.faults.slow("iscsiadm", "--login", seconds=8)
    fake_host.pass_time(7)
    began_s = fake_host.now
    connector.disconnect_volume(volume.properties, info)
    assert len(commands(fake_host, "iscsiadm", "--login")) == 2
    assert fake_host.now - began_s < 12
    assert fake_host.leftovers(settle_s=0) == []


@pytest.mark.parametrize("find_multipaths", ["no", "yes", "strict"])
@pytest.mark.parametrize("portals", [1, 2])
def test_always_a_map_even_of_one_path(
    fake_host: FakeHost, find_multipaths: str, portals: int
) -> None:
    fake_host.multipathd.find_multipaths = find_multipaths
    volume = fake_host.iscsi_target(portals=portals).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert info["multipath_id"] == volume.wwid
    assert fake_host.now < 12
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("late_s", [1, 4, 9])
def test_a_map_that_comes_late_is_waited_for(fake_host: FakeHost, late_s: float) -> None:
    fake_host.delays.multipath_build_s = late_s
    volume = fake_host.iscsi_target(portals=2).lun(1)
    info = fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    assert info["path"] == "/dev/dm-0"


def test_without_a_map_the_disk_is_returned_with_a_warning(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.multipathd.blacklist = True
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert info["path"] in ("/dev/sda", "/dev/sdb")
    assert "multipath_id" not in info
    assert "No dm was created" in caplog.text
    assert fake_host.now < 30
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_multipath_not_running_is_a_warning_unless_enforced(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    fake_host.multipathd.stop()
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert info["path"] in ("/dev/sda", "/dev/sdb")
    assert "Multipathing is requested but the host doesn't support multipathing." in caplog.text
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_enforced_multipath_fails_before_anything_is_touched(fake_host: FakeHost) -> None:
    fake_host.multipathd.stop()
    volume = fake_host.iscsi_target(portals=2).lun(1)
    with pytest.raises(exception.BrickException, match="enforced but the host doesn't support"):
        fake_host.connector(use_multipath=True).connect_volume(
            volume.connection(enforce_multipath=True)
        )
    assert commands(fake_host, "iscsiadm") == []
    assert fake_host.leftovers() == []


def test_a_map_that_is_not_usable_fails_the_attach_and_leaves_nothing(fake_host: FakeHost) -> None:
    fake_host.faults.fail("multipath", "-C", code=1, times=100)
    volume = fake_host.iscsi_target(portals=2).lun(1)
    with pytest.raises(processutils.ProcessExecutionError):
        fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    assert len(commands(fake_host, "multipath", "-C")) == 4
    assert fake_host.leftovers() == []


def test_what_the_kernel_scans_by_itself_at_a_failed_attachs_log_in_is_not_left(
    fake_host: FakeHost,
) -> None:
    fake_host.faults.fail("iscsiadm", "--op", "update", "node.session.scan", code=7, times=1000)
    fake_host.delays.disk_s = 0  # each is there when the log-in returns
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.faults.fail("multipath", "-C", times=4)
    with pytest.raises(processutils.ProcessExecutionError):
        fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    assert fake_host.leftovers() == []


def test_a_map_that_is_usable_late_is_waited_for(fake_host: FakeHost) -> None:
    fake_host.faults.fail("multipath", "-C", code=1, times=2)
    volume = fake_host.iscsi_target(portals=2).lun(1)
    info = fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    assert info["path"] == "/dev/dm-0"
    assert 6 <= fake_host.now < 12


@pytest.mark.parametrize("words", [("multipath",), ("multipathd",), ("multipathd", "add")])
def test_tools_that_hang_keep_nobody_beyond_the_deadline(
    fake_host: FakeHost, words: tuple[str, ...]
) -> None:
    fake_host.multipathd.find_multipaths = "strict"
    fake_host.faults.hang(*words)
    volume = fake_host.iscsi_target(portals=2).lun(1)
    try:
        fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    except (exception.BrickException, processutils.ProcessExecutionError):
        assert [one for one in fake_host.leftovers() if one.startswith("session")] == []
    assert fake_host.now <= 900


# -- nothing found -------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("fault", ["silent", "refuse", "hang"])
def test_no_portal_at_all(fake_host: FakeHost, multipath: bool, fault: str) -> None:
    volume = fake_host.iscsi_target(portals=4).lun(1)
    for portal in volume.target.portals:
        getattr(portal, fault)()
    with pytest.raises(exception.VolumeDeviceNotFound) as caught:
        fake_host.connector(use_multipath=multipath).connect_volume(volume.properties)
    for portal in volume.target.portals:
        assert portal.text in str(caught.value)
    assert fake_host.now <= 610
    assert fake_host.leftovers(settle_s=600) == []


@BOTH
def test_a_lun_that_never_comes_leaves_nothing_but_what_was_there(
    fake_host: FakeHost, multipath: bool
) -> None:
    target = fake_host.iscsi_target(portals=2)
    volume = target.lun(1, mapped=False)
    fake_host.sessions.create(target.iqn, target.portals[0], target, 0)  # somebody's, and idle
    foreign = fake_host.iscsi_target(["10.0.0.9:3260"]).lun(1)
    fake_host.connector().connect_volume(foreign.properties)
    fake_host.pass_time(1)
    fake_host.remember(anew=True)
    before = fake_host.inventory()
    with pytest.raises(exception.VolumeDeviceNotFound):
        fake_host.connector(use_multipath=multipath).connect_volume(volume.properties)
    assert fake_host.leftovers() == []
    assert fake_host.inventory() == before


@BOTH
@pytest.mark.parametrize(
    "form", [{"auth_method": "CHAP", "auth_username": "u", "auth_password": "p"}]
)
def test_a_session_of_others_is_kept_when_the_attach_fails(
    fake_host: FakeHost, multipath: bool, form: dict[str, object]
) -> None:
    target = fake_host.iscsi_target(portals=2)
    connector = fake_host.connector(use_multipath=multipath)
    connector.connect_volume(target.lun(1).properties)
    fake_host.pass_time(1)
    fake_host.remember(anew=True)
    before = fake_host.inventory()
    missing = target.lun(2, mapped=False)
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(missing.connection(**form))  # type: ignore[arg-type]
    fake_host.pass_time(5)
    assert fake_host.inventory() == before


def test_a_multipathd_that_is_late_is_waited_for(fake_host: FakeHost) -> None:
    """It is busy with other maps; the guest would have a single path for good."""
    fake_host.delays.multipath_build_s = 4
    fake_host.faults.fail("multipathd", "show", "status", out="timeout\n")
    volume = fake_host.iscsi_target(portals=2).lun(1)
    info = fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    assert info["path"] == "/dev/dm-0"


# -- the right volume ----------------------------------------------------------------------
@BOTH
def test_a_stale_disk_of_another_volume_is_never_returned(
    fake_host: FakeHost, multipath: bool
) -> None:
    old = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    connector.connect_volume(old.properties)
    new = old.remap()
    info = connector.connect_volume(new.properties)
    assert info["scsi_wwn"] == new.wwid
    fake_host.write(info["path"], b"new data")
    connector.disconnect_volume(new.properties, info)
    assert (old.data, new.data) == (b"", b"new data")
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize("foreign", [False, True])
def test_a_disk_in_use_that_has_a_serial_number_only_is_recognised(
    fake_host: FakeHost, multipath: bool, foreign: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1, wwid="")
    connector = fake_host.connector(use_multipath=multipath, foreign=foreign)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(2)
    fake_host.write(info["path"], b"data")
    disks = disk_names(fake_host)
    assert connector.connect_volume(volume.properties) == info
    assert (fake_host.lost, disk_names(fake_host)) == ([], disks)


@BOTH
def test_a_disk_whose_identity_cannot_be_compared_is_neither_returned_nor_removed(
    fake_host: FakeHost, multipath: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2 if multipath else 1).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    fake_host.write(info["path"], b"data")
    before = fake_host.inventory()
    for disk in fake_host.disks():
        for page in ("vpd_pg83", "vpd_pg80"):
            os.unlink(fake_host.host.sysfs.path("block", disk.name, "device", page))
    with pytest.raises(exception.BrickException, match="cannot be told"):
        connector.connect_volume(volume.properties)
    assert (fake_host.lost, fake_host.inventory()) == ([], before)


@BOTH
def test_a_disk_that_is_there_with_an_old_size_is_read_anew(
    fake_host: FakeHost, multipath: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    volume.grow(3 * 1024**3)
    connector.connect_volume(volume.properties)
    for disk in fake_host.disks():
        assert disk.size == 3 * 1024**3
    assert info["path"]


def test_paths_that_lead_to_different_volumes_are_never_mixed(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(portals=2, shared_iqn=False)
    volume = target.lun([1, 2])
    other = target.lun([2, 1])
    target.show([1, 2], volume.unit)
    target.show([2, 1], other.unit)
    properties = volume.connection(target_luns=[1, 1])
    with pytest.raises(exception.BrickException) as caught:
        fake_host.connector(use_multipath=True).connect_volume(properties)
    assert "different volumes" in str(caught.value)
    assert fake_host.leftovers() == []


def test_a_disk_that_does_not_answer_is_not_taken_for_the_volume(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target().lun(1)
    connector = fake_host.connector()
    connector.connect_volume(volume.properties)
    volume.target.portals[0].kill()
    with pytest.raises(exception.BrickException):
        connector.connect_volume(volume.properties)


# -- encrypted -----------------------------------------------------------------------------
@BOTH
def test_an_encrypted_volume_is_returned_by_a_link_of_ours(
    fake_host: FakeHost, multipath: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    properties = volume.connection(encrypted=True)
    info = connector.connect_volume(properties)
    real = "/dev/dm-0" if multipath else "/dev/sda"
    assert info["path"] == f"/dev/disk/by-id/os-brick{real.replace('/', '+')}"
    assert fake_host.host.dev.link_target(info["path"].removeprefix("/dev/")) == real
    fake_host.write(info["path"], b"secret")
    connector.disconnect_volume(properties, info)
    assert volume.data == b"secret"
    assert fake_host.leftovers() == []


def test_a_link_that_cannot_be_made_undoes_the_attach(fake_host: FakeHost) -> None:
    fake_host.faults.failing_writes["link"] = 30
    volume = fake_host.iscsi_target().lun(1)
    with pytest.raises(OSError, match="Read-only"):
        fake_host.connector().connect_volume(volume.connection(encrypted=True))
    assert fake_host.leftovers() == []
