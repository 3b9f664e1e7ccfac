# SPDX-License-Identifier: Apache-2.0
"""Huawei SDS Hypervisor on a fake host, and with a real program in place of its tool."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator import connector as front_door
from os_brick.initiator.connectors import huawei
from os_brick.initiator.connectors.huawei import CliAnswer, parse_answer
from os_brick.testing import FakeHost
from os_brick.testing.process import Answer, Process
from os_brick.testing.vendor_disk import VendorDisk

PROPERTIES = {"volume_id": "volume-b2911673-863c-4380-a5f2-e1729eecfe3f"}
DEVICE = "/dev/vdxxx"


class Cli:
    """The tool: ``sds_cli -c VERB -v VOLUME``."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.attached: set[str] = set()
        #: Result codes to give, by verb, in place of the work.
        self.codes: dict[str, int] = {}
        self.silent: set[str] = set()
        self.exit_code = 0

    def run(self, process: Process) -> Answer:
        _cli, _c, verb, _v, volume = process.words
        if verb in self.silent:
            return Answer(self.exit_code)
        code, address = self.codes.get(verb, 0), ""
        if verb == "attach" and not code:
            code = 0 if volume not in self.attached else 50151401
            self.attached.add(volume)
            if not code:
                VendorDisk.appear(self.host, "vdxxx")
        elif verb == "detach" and not code:
            code = 0 if volume in self.attached else 50155007
            self.attached.discard(volume)
            disk = self.host.devices.find(DEVICE)
            if isinstance(disk, VendorDisk):
                disk.vanish()
        elif verb == "querydev" and not code:
            code = 0 if volume in self.attached else 50151601
            address = DEVICE if not code else ""
        text = f"some noise\nret_code={code}\nret_desc=said\ndev_addr={address}\nmore = noise\n"
        return Answer(self.exit_code, out=text)


@pytest.fixture
def cli(fake_host: FakeHost, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    path = tmp_path / "sds_cli"
    path.touch()
    monkeypatch.setenv("HUAWEISDSHYPERVISORCLI_PATH", str(path))
    one = Cli(fake_host)
    fake_host.programs.install("sds_cli", one.run)
    return one


@pytest.fixture
def connector(fake_host: FakeHost, cli: Cli) -> Any:
    return fake_host.connector("HUAWEISDSHYPERVISOR")


def test_attach_and_detach(fake_host: FakeHost, cli: Cli, connector: Any) -> None:
    info = connector.connect_volume(PROPERTIES)

    assert info == {"type": "block", "path": DEVICE}
    disk = fake_host.devices.find(DEVICE)
    assert isinstance(disk, VendorDisk)
    assert connector.connect_volume(PROPERTIES) == info
    assert connector.get_volume_paths(PROPERTIES) == [DEVICE]
    assert connector.is_volume_connected(PROPERTIES["volume_id"])
    fake_host.write(DEVICE, b"data")
    connector.disconnect_volume(PROPERTIES, info)
    assert disk.unit.data == b"data"
    assert cli.attached == set()
    assert not connector.is_volume_connected(PROPERTIES["volume_id"])


@pytest.mark.parametrize("code", [50151401, 50151405])
def test_what_is_attached_already_is_success(
    fake_host: FakeHost, cli: Cli, connector: Any, code: int
) -> None:
    cli.attached.add(PROPERTIES["volume_id"])
    VendorDisk.appear(fake_host, "vdxxx")
    cli.codes["attach"] = code

    assert connector.connect_volume(PROPERTIES)["path"] == DEVICE


def test_an_attach_that_is_refused(cli: Cli, connector: Any) -> None:
    cli.codes["attach"] = 50150601

    with pytest.raises(
        exception.BrickException, match="Attach volume failed, error code is 50150601"
    ):
        connector.connect_volume(PROPERTIES)


def test_an_attach_whose_device_is_not_told_is_undone(cli: Cli, connector: Any) -> None:
    cli.codes["querydev"] = 50151601

    with pytest.raises(
        exception.BrickException,
        match="query attached volume failed or volume not attached",
    ):
        connector.connect_volume(PROPERTIES)
    assert cli.attached == set()


def test_what_others_attached_stays(cli: Cli, connector: Any) -> None:
    cli.attached.add(PROPERTIES["volume_id"])
    cli.codes["querydev"] = 50151601

    with pytest.raises(exception.BrickException):
        connector.connect_volume(PROPERTIES)
    assert cli.attached == {PROPERTIES["volume_id"]}


@pytest.mark.parametrize("code", [50151209, 50155007])
def test_what_is_not_here_is_detached(cli: Cli, connector: Any, code: int) -> None:
    cli.codes["detach"] = code

    connector.disconnect_volume(PROPERTIES, None)


def test_a_detach_that_is_refused(cli: Cli, connector: Any) -> None:
    connector.connect_volume(PROPERTIES)
    cli.codes["detach"] = 50150601

    with pytest.raises(
        exception.BrickException, match="Disconnect_volume failed, error code is 50150601"
    ):
        connector.disconnect_volume(PROPERTIES, None)
    with pytest.raises(exception.ExceptionChainer):
        connector.disconnect_volume(PROPERTIES, None, force=True)
    connector.disconnect_volume(PROPERTIES, None, force=True, ignore_errors=True)


def test_what_cannot_be_written_out_stays_attached(
    fake_host: FakeHost, cli: Cli, connector: Any
) -> None:
    connector.connect_volume(PROPERTIES)
    disk = fake_host.devices.find(DEVICE)
    assert isinstance(disk, VendorDisk)
    disk.state = "fails"
    fake_host.write(DEVICE, b"data")

    with pytest.raises(processutils.ProcessExecutionError):
        connector.disconnect_volume(PROPERTIES, None)
    assert cli.attached
    connector.disconnect_volume(PROPERTIES, None, force=True, ignore_errors=True)
    assert not cli.attached


@pytest.mark.parametrize("verb", ["attach", "detach"])
@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_tool_that_says_nothing(cli: Cli, connector: Any, verb: str, exit_code: int) -> None:
    cli.silent.add(verb)
    cli.exit_code = exit_code

    def ask() -> None:
        if verb == "attach":
            connector.connect_volume(PROPERTIES)
        else:
            connector.disconnect_volume(PROPERTIES, None)

    with pytest.raises(
        exception.BrickException, match=r"error code is None \(the tool printed no result\)"
    ):
        ask()


def test_a_tool_that_never_ends(fake_host: FakeHost, connector: Any) -> None:
    fake_host.faults.hang("attach")

    with pytest.raises(exception.BrickException, match="SDS command attach failed"):
        connector.connect_volume(PROPERTIES)
    assert fake_host.now < 600


def test_no_tool(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HUAWEISDSHYPERVISORCLI_PATH", "/nowhere/sds_cli")

    connector = fake_host.connector("HUAWEISDSHYPERVISOR")

    assert "SDS CLI file not found" in caplog.text
    calls: list[Callable[[], object]] = [
        lambda: connector.connect_volume(PROPERTIES),
        lambda: connector.disconnect_volume(PROPERTIES, None),
        lambda: connector.get_volume_paths(PROPERTIES),
        lambda: connector.is_volume_connected("x"),
    ]
    for call in calls:
        with pytest.raises(
            exception.BrickException,
            match="SDS command line doesn't exist, can't execute SDS command",
        ):
            call()


def test_where_the_tool_is_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUAWEISDSHYPERVISORCLI_PATH", raising=False)

    connector = huawei.HuaweiStorHyperConnector(None)
    assert connector.cli_path == "/usr/local/bin/sds/sds_cli"


def test_a_real_program_is_run_as_the_services_own_user(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, fake_host: FakeHost
) -> None:
    path = tmp_path / "sds_cli"
    path.write_text('#!/bin/sh\necho "ret_code=0"; echo "dev_addr=/dev/$2-$4"\n')
    path.chmod(0o755)
    monkeypatch.setenv("HUAWEISDSHYPERVISORCLI_PATH", str(path))

    connector = huawei.HuaweiStorHyperConnector(None)

    assert connector.get_volume_paths({"volume_id": "v1"}) == ["/dev/querydev-v1"]


@pytest.mark.parametrize("properties", [{}, {"volume_id": ""}, {"volume_id": "-x"}])
def test_properties_that_name_no_volume(
    fake_host: FakeHost, connector: Any, properties: dict[str, Any]
) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="volume_id"):
        connector.connect_volume(properties)
    with pytest.raises(exception.InvalidParameterValue, match="volume_id"):
        connector.disconnect_volume(properties, None)
    assert fake_host.started == []


def test_paths_of_what_is_not_here(connector: Any) -> None:
    with pytest.raises(exception.BrickException, match="Couldn't find a volume"):
        connector.get_volume_paths(PROPERTIES)


def test_secrets_in_properties_are_not_logged(
    connector: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    connector.connect_volume({**PROPERTIES, "auth_password": "s3cret"})

    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("exit_code", [0, 139])
def test_a_tool_that_says_nothing_does_not_say_that_nothing_is_here(
    fake_host: FakeHost, cli: Cli, connector: Any, exit_code: int
) -> None:
    info = connector.connect_volume(PROPERTIES)
    disk = fake_host.devices.find(DEVICE)
    assert isinstance(disk, VendorDisk)
    fake_host.write(DEVICE, b"data")
    cli.silent.add("querydev")
    cli.exit_code = exit_code
    with pytest.raises(exception.BrickException, match="not known"):
        connector.disconnect_volume(PROPERTIES, info)
    assert cli.attached
    cli.silent.clear()
    cli.exit_code = 0
    connector.disconnect_volume(PROPERTIES, info)
    assert disk.unit.data == b"data"


def test_the_rest(connector: Any) -> None:
    assert connector.get_search_path() is None
    assert connector.get_all_available_volumes() == []
    assert huawei.HuaweiStorHyperConnector.get_connector_properties(None) == {}
    assert front_door.HuaweiStorHyperConnector is huawei.HuaweiStorHyperConnector
    with pytest.raises(NotImplementedError):
        connector.extend_volume(PROPERTIES)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", CliAnswer()),
        (None, CliAnswer()),
        ("ret_code=0\nret_desc=success\ndev_addr=/dev/sdx\n", CliAnswer(0, "success", "/dev/sdx")),
        ("ret_code = 7 \nret_desc=a=b\n", CliAnswer(7, "a=b")),
        ("ret_code=x\n", CliAnswer()),
        ("ret_code=-1\n", CliAnswer(-1)),
        ("garbage\n=\nother=1\n", CliAnswer()),
    ],
)
def test_what_the_tool_prints(text: str | None, answer: CliAnswer) -> None:
    assert parse_answer(text) == answer


@given(st.text())
def test_no_output_breaks_the_parser(text: str) -> None:
    assert str(parse_answer(text))
