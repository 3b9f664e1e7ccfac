# SPDX-License-Identifier: Apache-2.0
"""The front door: connectors by protocol and architecture, and what this host tells of itself."""

from __future__ import annotations

import importlib.util
import json
import platform
import socket
import subprocess
import sys
from typing import Any

import pytest

from os_brick import exception, initiator
from os_brick.initiator import connector, initiator_connector

ARCHITECTURES = ["x86_64", "aarch64", "s390x", "s390", "ppc64", "ppc64le"]
PROTOCOLS = sorted(
    {name for arch in ARCHITECTURES for name in connector.get_connector_mapping(arch)}
)
#: Dotted names of the classes that are there.
THERE = [
    path
    for path in connector.connector_list
    if importlib.util.find_spec(path.rpartition(".")[0]) is not None
]
ODD: dict[str, Any] = {
    "conn": {"data": {}},
    "enforce_multipath": True,
    "do_local_attach": True,
    "expect_raw_disk": True,
    "message_queue": None,
    "no_such_keyword": 1,
    # Connectors of remote file systems have to be told where to mount.
    **{
        f"{name}_mount_point_base": "/mnt"
        for name in ("nfs", "glusterfs", "scality", "quobyte", "vzstorage")
    },
}


# -- MI-10 the factory -----------------------------------------------------------------------
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_on_every_architecture(protocol: str, arch: str) -> None:
    path = connector.get_connector_mapping(arch).get(protocol)
    if path not in THERE:
        with pytest.raises(exception.InvalidConnectorProtocol, match=f"specified {protocol}$"):
            connector.InitiatorConnector.factory(protocol, "sudo", arch=arch)
        return

    def make() -> Any:
        return connector.InitiatorConnector.factory(
            protocol.lower(), "sudo", None, True, 7, arch, **dict(ODD)
        )

    if protocol == initiator.STORPOOL:
        # It reads its cluster's configuration, which tests have not.
        with pytest.raises(exception.BrickException, match="StorPool"):
            make()
        return
    made = make()

    assert f"{type(made).__module__}.{type(made).__qualname__}" == path
    assert issubclass(type(made), initiator_connector.InitiatorConnector)
    assert made.device_scan_attempts == 7
    assert made.use_multipath is True
    assert made.driver is not None


def test_the_default_architecture_is_this_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")

    assert connector.get_connector_mapping() == connector.get_connector_mapping("s390x")
    with pytest.raises(exception.InvalidConnectorProtocol):
        connector.InitiatorConnector.factory(initiator.SCALEIO, "sudo")


def test_the_map_is_the_caller_s_own() -> None:
    connector.get_connector_mapping("x86_64").clear()

    assert connector.get_connector_mapping("x86_64")


@pytest.mark.parametrize("protocol", ["", "FLOPPY", "iscsi "])
def test_protocols_that_never_were(protocol: str) -> None:
    with pytest.raises(exception.InvalidConnectorProtocol) as caught:
        connector.InitiatorConnector.factory(protocol, "sudo")

    assert str(caught.value) == f"Invalid InitiatorConnector protocol specified {protocol}"


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    "protocol",
    ["AOE", "aoe", "DRBD", "SHEEPDOG", "DISCO", "HGST", "VERITAS_HYPERSCALE", initiator.SMBFS],
)
def test_retired_protocols_say_so(protocol: str, arch: str) -> None:
    with pytest.raises(exception.InvalidConnectorProtocol, match="was retired") as caught:
        connector.InitiatorConnector.factory(protocol, "sudo", arch=arch)

    assert str(caught.value).startswith(
        f"Invalid InitiatorConnector protocol specified {protocol}: "
    )


def test_no_protocol_is_both_there_and_retired() -> None:
    assert not set(PROTOCOLS) & set(connector.RETIRED)


# -- names -----------------------------------------------------------------------------------
def test_connectors_are_attributes_of_the_front_door() -> None:
    for path in THERE:
        name = path.rpartition(".")[2]
        found = getattr(connector, name)
        assert f"{found.__module__}.{found.__qualname__}" == path
    with pytest.raises(AttributeError, match="NoSuchConnector"):
        connector.NoSuchConnector  # noqa: B018


def run_alone(program: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def test_modules_are_attributes_of_their_packages() -> None:
    program = """
import json
from os_brick import initiator
print(json.dumps([
    initiator.linuxscsi.LinuxSCSI.__name__,
    initiator.connectors.iscsi.ISCSIConnector.__name__,
    hasattr(initiator, "no_such_module"),
    hasattr(initiator, "_private"),
]))
"""
    assert run_alone(program) == ["LinuxSCSI", "ISCSIConnector", False, False]


def test_no_software_of_any_storage_is_needed() -> None:
    program = f"""
import json, sys
for name in ("rados", "rbd", "oslo_vmware", "requests", "nvme", "storpool"):
    sys.modules[name] = None
from os_brick.initiator import connector
print(json.dumps([getattr(connector, path.rpartition(".")[2]).__name__ for path in {THERE}]))
"""
    assert run_alone(program) == [path.rpartition(".")[2] for path in THERE]


# -- MI-11 properties ------------------------------------------------------------------------
def test_properties_of_a_bare_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "unix_connector_list", connector.unix_connector_list[:1])

    found = connector.get_connector_properties("sudo", "10.0.0.1", True, False, host="here")

    assert found == {
        "platform": platform.machine(),
        "os_type": sys.platform,
        "ip": "10.0.0.1",
        "host": "here",
        "multipath": True,
        "enforce_multipath": False,
    }
    assert json.loads(json.dumps(found)) == found


def test_the_host_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "unix_connector_list", [])
    monkeypatch.setattr(socket, "gethostname", lambda: "its-name")

    assert connector.get_connector_properties("sudo", None, False, False)["host"] == "its-name"
