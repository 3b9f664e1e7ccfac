# SPDX-License-Identifier: Apache-2.0
"""Volumes that are on the host already, and the connectors for tests of services."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator import connector as factory
from os_brick.initiator.connectors import base_iscsi, fake
from os_brick.initiator.connectors.gpfs import GPFSConnector
from os_brick.initiator.connectors.local import LocalConnector
from os_brick.testing import FakeHost

BOTH = pytest.mark.parametrize("protocol", ["LOCAL", "GPFS"])


@pytest.fixture
def file(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "volume-1"
    path.write_bytes(bytes(12345))
    return str(path)


@BOTH
def test_the_path_is_handed_out(fake_host: FakeHost, protocol: str, file: str) -> None:
    connector = fake_host.connector(protocol)
    properties = {"device_path": file, "name": "volume-1", "encrypted": True}
    info = connector.connect_volume(properties)
    assert info == {"type": protocol.lower(), "path": file}
    connector.disconnect_volume(properties, info, force=True, ignore_errors=True)
    assert connector.get_volume_paths(properties) == [file]
    assert connector.get_search_path() is None
    assert connector.get_all_available_volumes() == []
    assert fake_host.journal == []


@BOTH
@pytest.mark.parametrize("properties", [{}, {"device_path": ""}, {"device_path": None}])
def test_a_path_is_required(fake_host: FakeHost, protocol: str, properties: dict[str, Any]) -> None:
    connector = fake_host.connector(protocol)
    period = "." if protocol == "GPFS" else ""
    text = f"Invalid connection_properties specified no device_path attribute{period}"
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is looked at below
        connector.connect_volume(properties)
    assert str(caught.value) == text


@BOTH
@pytest.mark.parametrize("below", ["missing", "volume-1/below-a-file"])
def test_a_path_at_which_nothing_is(
    fake_host: FakeHost, protocol: str, file: str, below: str
) -> None:
    path = str(pathlib.Path(file).parent / below)
    with pytest.raises(exception.VolumeDeviceNotFound, match=below):
        fake_host.connector(protocol).connect_volume({"device_path": path})


def test_a_services_own_execute_function_may_see_other_files(fake_host: FakeHost) -> None:
    connector = fake_host.connector("LOCAL", foreign=True)
    assert connector.connect_volume({"device_path": "/elsewhere"})["path"] == "/elsewhere"


@BOTH
def test_the_size_of_a_file(fake_host: FakeHost, protocol: str, file: str) -> None:
    assert fake_host.connector(protocol).extend_volume({"device_path": file}) == 12345


@BOTH
def test_the_size_of_a_device(fake_host: FakeHost, protocol: str) -> None:
    device = fake_host.ceph.map(fake_host.ceph.image(size=3 << 20))
    path = f"/dev/{device.name}"
    assert fake_host.connector(protocol).extend_volume({"device_path": path}) == 3 << 20
    assert fake_host.started == [("blockdev", "--getsize64", path)]


def test_a_link_outside_of_dev_to_a_device(fake_host: FakeHost) -> None:
    path = "/srv/volume"
    fake_host.faults.fail("stat", code=0, out="61b0 0\n")  # S_IFBLK
    fake_host.faults.fail("blockdev", code=0, out="4096\n")
    assert fake_host.connector("LOCAL").extend_volume({"device_path": path}) == 4096


def test_a_file_that_is_gone_has_no_size(fake_host: FakeHost, file: str) -> None:
    with pytest.raises(processutils.ProcessExecutionError, match="No such file"):
        fake_host.connector("GPFS").extend_volume({"device_path": f"{file}-2"})


def test_what_the_host_tells() -> None:
    assert LocalConnector.get_connector_properties("sudo", host="x") == {}
    assert GPFSConnector.get_connector_properties("sudo") == {}


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "s390x", "ppc64le"])
def test_they_are_on_every_architecture(arch: str) -> None:
    for protocol, kind in (("local", LocalConnector), ("gpfs", GPFSConnector)):
        made = factory.InitiatorConnector.factory(protocol, "sudo", arch=arch, unknown=1)
        assert type(made) is kind
    assert issubclass(GPFSConnector, LocalConnector)


def test_the_fakes() -> None:
    connector = fake.FakeConnector("sudo")
    assert connector.connect_volume({}) == {"type": "fake", "path": "/dev/vdFAKE"}
    connector.disconnect_volume({}, None, force=True)
    assert connector.get_volume_paths({}) == ["/dev/vdFAKE"]
    assert connector.extend_volume({}) is None
    assert connector.get_all_available_volumes({})
    assert connector.get_search_path()
    assert issubclass(fake.FakeBaseISCSIConnector, base_iscsi.BaseISCSIConnector)
