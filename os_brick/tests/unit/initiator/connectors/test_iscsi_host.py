# SPDX-License-Identifier: Apache-2.0
"""The host's initiator name and interfaces; sessions of every transport."""

from __future__ import annotations

import errno

import pytest

from os_brick import exception
from os_brick.initiator.connectors.iscsi import ISCSIConnector
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import commands

NAME_FILE = "/etc/iscsi/initiatorname.iscsi"


# -- initiator name ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("InitiatorName=iqn.2010-10.org.example:h\n", "iqn.2010-10.org.example:h"),
        ("# InitiatorName=iqn.no\n\nInitiatorName=iqn.yes  \nInitiatorName=iqn.no\n", "iqn.yes"),
        ("", None),
        ("# nothing\n", None),
    ],
)
def test_the_initiator_name(fake_host: FakeHost, text: str, name: str | None) -> None:
    fake_host.coreutils.files[NAME_FILE] = text
    assert fake_host.connector().get_initiator() == name


def test_an_initiator_name_that_cannot_be_read(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    del fake_host.coreutils.files[NAME_FILE]
    assert fake_host.connector().get_initiator() is None
    assert NAME_FILE in caplog.text


def test_connector_properties_by_the_services_execute(fake_host: FakeHost) -> None:
    properties = ISCSIConnector.get_connector_properties(
        "sudo", multipath=True, enforce_multipath=True, execute=fake_host.execute
    )
    assert properties == {"initiator": "iqn.2010-10.org.example:host"}
    fake_host.coreutils.files.clear()
    assert ISCSIConnector.get_connector_properties("sudo", execute=fake_host.execute) == {}


def test_a_host_without_open_iscsi_has_no_initiator(fake_host: FakeHost) -> None:
    def no_such_program(*words: str, **keywords: object) -> tuple[str, str]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", words[0])

    assert ISCSIConnector.get_connector_properties("sudo", execute=no_such_program) == {}


# -- interfaces ----------------------------------------------------------------------------
@pytest.mark.parametrize("transport", ["default", "iser"])
def test_usual_transports_are_taken_without_looking(fake_host: FakeHost, transport: str) -> None:
    assert fake_host.connector(transport=transport).transport == transport
    assert fake_host.started == []


@pytest.mark.parametrize(
    "driver", ["be2iscsi", "bnx2i", "cxgb3i", "cxgb4i", "qla4xxx", "ocs", "tcp", "iser"]
)
def test_an_interface_with_an_accepted_driver(fake_host: FakeHost, driver: str) -> None:
    fake_host.node_records.ifaces["nic.1"] = driver
    assert fake_host.connector(transport="nic.1").transport == "nic.1"
    assert len(commands(fake_host, "iscsiadm", "iface")) == 1


@pytest.mark.parametrize("code", [0, 2, 6, 7, 255])
def test_an_interface_that_does_not_do_falls_back(
    fake_host: FakeHost, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    if code:
        fake_host.faults.fail("iscsiadm", "iface", code=code)
    else:
        fake_host.node_records.ifaces["nic.1"] = "unheard-of"
    assert fake_host.connector(transport="nic.1").transport == "default"
    assert "nic.1" in caplog.text


def test_protocol_iser(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector("ISER", use_multipath=True)
    assert connector.transport == "iser"
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    assert {one.driver for one in fake_host.sessions.all()} == {"iser"}
    assert commands(fake_host, "discovery", "-I", "iser")
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize(
    "driver", ["tcp", "iser", "bnx2i", "be2iscsi", "cxgb3i", "cxgb4i", "qla4xxx", "ocs"]
)
@pytest.mark.parametrize("multipath", [False, True])
def test_sessions_of_every_transport_are_made_reused_and_cleaned(
    fake_host: FakeHost, driver: str, multipath: bool
) -> None:
    fake_host.node_records.ifaces["nic.1"] = driver
    target = fake_host.iscsi_target(portals=2)
    first, second = target.lun(1), target.lun(2)
    connector = fake_host.connector(transport="nic.1", use_multipath=multipath)
    one = connector.connect_volume(first.properties)
    assert {session.iface for session in fake_host.sessions.all()} == {"nic.1"}
    fake_host.forget()
    two = connector.connect_volume(second.properties)
    assert commands(fake_host, "--login") == []
    connector.disconnect_volume(first.properties, one)
    connector.disconnect_volume(second.properties, two)
    assert fake_host.leftovers() == []


def test_a_session_that_another_interface_made_is_used_and_cleaned(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    volume = target.lun(1)
    fake_host.sessions.create(
        target.iqn, target.portals[0], target, 0, iface="nic.1", driver="bnx2i", scans=False
    )
    connector = fake_host.connector()
    info = connector.connect_volume(volume.properties)
    assert commands(fake_host, "--login") == []
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.sessions.all() == []


@pytest.mark.parametrize("driver", ["iser", "bnx2i"])
def test_a_portal_that_cannot_be_asked_by_tcp_is_logged_in_to(
    fake_host: FakeHost, driver: str
) -> None:
    fake_host.node_records.ifaces["nic.1"] = driver
    volume = fake_host.iscsi_target().lun(1)
    asked: list[str] = []
    fake_host.network.when_asked.append(lambda address, port: asked.append(address))
    info = fake_host.connector(transport="nic.1").connect_volume(volume.properties)
    assert info["path"] == "/dev/sda"
    assert asked == []


# -- multipath on this host ----------------------------------------------------------------
def test_supports_multipath(fake_host: FakeHost) -> None:
    connector = fake_host.connector(use_multipath=True)
    assert connector.supports_multipath() is True
    fake_host.faults.mumble("multipathd", out="error receiving packet\n")
    assert connector.supports_multipath() is False
    fake_host.faults.mend()
    fake_host.multipathd.stop()
    assert connector.supports_multipath() is False


def test_check_multipath(fake_host: FakeHost) -> None:
    connector = fake_host.connector(use_multipath=True)
    assert connector.check_multipath({}) is True
    fake_host.multipathd.stop()
    assert connector.check_multipath({}) is False
    with pytest.raises(exception.BrickException, match="enforced"):
        connector.check_multipath({"enforce_multipath": True})
    assert fake_host.connector().check_multipath({"enforce_multipath": True}) is False
