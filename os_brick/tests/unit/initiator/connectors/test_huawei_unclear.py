# SPDX-License-Identifier: Apache-2.0
"""Huawei: answers of the tool that do not tell, and those that never come."""

from __future__ import annotations

from typing import Any

import pytest
from oslo_config import cfg

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.process import Answer, Process
from os_brick.testing.vendor_disk import VendorDisk
from os_brick.tests.unit.initiator.connectors.test_huawei import DEVICE, PROPERTIES, Cli
from os_brick.tests.unit.initiator.connectors.test_huawei import cli as cli
from os_brick.tests.unit.initiator.connectors.test_huawei import connector as connector


def test_an_abnormal_service_does_not_say_that_nothing_is_here(
    fake_host: FakeHost, cli: Cli, connector: Any
) -> None:
    info = connector.connect_volume(PROPERTIES)
    disk = fake_host.devices.find(DEVICE)
    assert isinstance(disk, VendorDisk)
    fake_host.write(DEVICE, b"data")
    cli.codes["querydev"] = cli.codes["detach"] = connector.vbs_unnormal_code
    connector.disconnect_volume(PROPERTIES, info)
    assert disk.unit.data == b"data"  # written out before success was told


def test_an_abnormal_service_and_no_path(fake_host: FakeHost, cli: Cli, connector: Any) -> None:
    connector.connect_volume(PROPERTIES)
    fake_host.write(DEVICE, b"data")
    cli.codes["querydev"] = cli.codes["detach"] = connector.vbs_unnormal_code
    with pytest.raises(exception.BrickException, match="not known"):
        connector.disconnect_volume(PROPERTIES, None)
    connector.disconnect_volume(PROPERTIES, None, force=True, ignore_errors=True)


def hanging(cli: Cli, verb: str) -> Any:
    """The tool does its work, and then does not end: once."""
    left = [1]

    def run(process: Process) -> Answer:
        answer = cli.run(process)
        if process.words[2] == verb and cli.attached and left:
            left.pop()
            process.unlocked_wait(lambda: False)
        return answer

    return run


@pytest.mark.parametrize("verb", ["attach", "querydev"])
def test_an_attach_that_is_over_its_time_is_undone(
    fake_host: FakeHost, cli: Cli, connector: Any, verb: str
) -> None:
    cfg.CONF.set_override("call_timeout", 10, group="os_brick")
    fake_host.programs.install("sds_cli", hanging(cli, verb))
    try:
        with pytest.raises(exception.BrickException):
            connector.connect_volume(PROPERTIES)
    finally:
        cfg.CONF.clear_override("call_timeout", group="os_brick")
    assert cli.attached == set()


def test_an_attach_without_an_answer_is_undone(
    fake_host: FakeHost, cli: Cli, connector: Any
) -> None:
    def run(process: Process) -> Answer:
        answer = cli.run(process)
        return Answer(0) if process.words[2] == "attach" else answer

    fake_host.programs.install("sds_cli", run)
    with pytest.raises(exception.BrickException, match="printed no result"):
        connector.connect_volume(PROPERTIES)
    assert cli.attached == set()


def test_what_was_attached_before_stays(fake_host: FakeHost, cli: Cli, connector: Any) -> None:
    connector.connect_volume(PROPERTIES)
    cli.silent.add("attach")
    with pytest.raises(exception.BrickException):
        connector.connect_volume(PROPERTIES)
    assert cli.attached == {PROPERTIES["volume_id"]}


@pytest.mark.parametrize("code", [50151209, 50150001])
@pytest.mark.parametrize("detach", [0, 50151209])
def test_data_of_a_volume_whose_query_fails(
    fake_host: FakeHost, cli: Cli, connector: Any, code: int, detach: int
) -> None:
    info = connector.connect_volume(PROPERTIES)
    disk = fake_host.devices.find(DEVICE)
    assert isinstance(disk, VendorDisk)
    fake_host.write(DEVICE, b"data")
    cli.codes["querydev"] = code
    if detach:
        cli.codes["detach"] = detach
    try:
        connector.disconnect_volume(PROPERTIES, info)
    except exception.BrickException:
        return
    assert disk.unit.data == b"data"


def test_attach_that_ends_at_the_deadline_is_undone(
    fake_host: FakeHost, cli: Cli, connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oslo_config import cfg

    cfg.CONF.set_override("call_timeout", 100, group="os_brick")
    try:
        run = cli.run

        def slow(process: Process) -> Answer:
            answer = run(process)
            if "attach" in process.words:
                fake_host.host.clock.wait(101)
            return answer

        fake_host.programs.install("sds_cli", slow)
        with pytest.raises(exception.BrickException):
            connector.connect_volume(PROPERTIES)
        assert cli.attached == set()
    finally:
        cfg.CONF.clear_override("call_timeout", group="os_brick")


def test_with_force_it_is_detached_though_the_query_hangs(
    fake_host: FakeHost, cli: Cli, connector: Any
) -> None:
    info = connector.connect_volume(PROPERTIES)
    fake_host.faults.hang("querydev")
    with pytest.raises(exception.ExceptionChainer):
        connector.disconnect_volume(PROPERTIES, info, force=True)
    assert cli.attached == set()


def test_a_device_that_does_not_appear_is_no_success(
    fake_host: FakeHost, cli: Cli, connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VendorDisk, "appear", lambda *args, **keywords: None)
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(PROPERTIES)
    assert cli.attached == set()
