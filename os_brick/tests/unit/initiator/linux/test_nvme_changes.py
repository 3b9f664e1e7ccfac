# SPDX-License-Identifier: Apache-2.0
"""The library's own verbs for NVMe as the calls use them, with the verbs themselves replaced."""

from __future__ import annotations

import struct
import uuid
from typing import Any

import pytest

from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.nvme import Controller
from os_brick.initiator.linux.nvme_changes import NotSupported, PrivilegedNvme
from os_brick.initiator.linux.nvme_ids import NamespaceIds
from os_brick.privileged import nvme as verbs
from os_brick.privileged import nvmeof
from os_brick.testing import FakeHost

UUID = "4941ef75-95b8-ee97-8ccf-096800f205c6"
CONTROLLER = Controller("nvme3", 4711, "nqn.a", "tcp", {})


@pytest.fixture
def call(fake_host: FakeHost) -> Call:
    return Call("test", fake_host.host.clock, 60)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], tuple[int, bytes]]:
    """Answers by structure and number; what is not here is refused as no such namespace."""
    answers: dict[tuple[int, int], tuple[int, bytes]] = {}

    def identify(
        name: str, instance: int, structure: int, nsid: int, limit_s: float
    ) -> dict[str, Any]:
        assert (name, instance) == ("nvme3", 4711)
        assert 0 < limit_s <= 15
        status, data = answers.get((structure, nsid), (0x400B, b""))
        return {"status": status, "data": data.ljust(4096, b"\0")}

    monkeypatch.setattr(verbs, "identify", identify)
    return answers


def test_identifiers(call: Call, asked: dict[Any, Any]) -> None:
    asked[3, 7] = (0, bytes([3, 16, 0, 0]) + uuid.UUID(UUID).bytes)
    assert PrivilegedNvme().describe(call, CONTROLLER, 7) == NamespaceIds(UUID, "", 7)
    assert PrivilegedNvme().describe(call, CONTROLLER, 8) is None
    assert "no such namespace" in str(call.timeline)


@pytest.mark.parametrize("status", [0x4001, 0x4002, 0x2])
def test_subsystems_without_lists_of_identifiers(
    call: Call, asked: dict[Any, Any], status: int
) -> None:
    asked[3, 7] = (status, b"")
    with pytest.raises(NotSupported, match=hex(status)):
        PrivilegedNvme().describe(call, CONTROLLER, 7)


# Of other types: the path cannot be used for it, it has gone for good by it.
@pytest.mark.parametrize("status", [0x4302, 0x4301, 0x430B, 0x4006])
def test_the_same_code_of_another_type_says_nothing_of_the_namespace(
    call: Call, asked: dict[Any, Any], status: int
) -> None:
    asked[3, 7] = (status, b"")
    with pytest.raises(OSError, match=hex(status)) as caught:
        PrivilegedNvme().describe(call, CONTROLLER, 7)
    assert not isinstance(caught.value, NotSupported)


def test_another_status_is_an_error(call: Call, asked: dict[Any, Any]) -> None:
    asked[3, 7] = asked[2, 0] = asked[0, 7] = (0x2006, b"")
    door = PrivilegedNvme()
    for ask in (
        lambda: door.describe(call, CONTROLLER, 7),
        lambda: door.list_active(call, CONTROLLER),
        lambda: door.read_size(call, CONTROLLER, 7),
    ):
        with pytest.raises(OSError, match="0x2006"):
            ask()


def test_active_namespaces_of_more_than_one_list(call: Call, asked: dict[Any, Any]) -> None:
    asked[2, 0] = (0, struct.pack("<1024I", *range(1, 1025)))
    asked[2, 1024] = (0, struct.pack("<2I", 2000, 2001))
    found = PrivilegedNvme().list_active(call, CONTROLLER)
    assert found == {*range(1, 1025), 2000, 2001}


def test_size(call: Call, asked: dict[Any, Any]) -> None:
    data = bytearray(4096)
    data[0:8] = struct.pack("<Q", 16)
    data[130] = 12
    asked[0, 7] = (0, bytes(data))
    assert PrivilegedNvme().read_size(call, CONTROLLER, 7) == 65536


@pytest.mark.parametrize("there", [True, False])
def test_changes(call: Call, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    made: list[tuple[Any, ...]] = []

    def write_attribute(*words: Any) -> bool:
        made.append(words[:3])
        return there

    monkeypatch.setattr(verbs, "write_attribute", write_attribute)
    monkeypatch.setattr(verbs, "read_block", lambda *words: made.append(words[:1]))
    door = PrivilegedNvme()
    door.rescan(call, CONTROLLER)
    door.delete(call, CONTROLLER)
    door.read_block(call, "nvme0n1")
    assert made == [
        ("nvme3", 4711, "rescan_controller"),
        ("nvme3", 4711, "delete_controller"),
        ("nvme0n1",),
    ]
    assert ("was gone" in str(call.timeline)) is not there


def test_the_machine(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvmeof, "get_system_uuid", lambda: UUID)
    assert PrivilegedNvme().system_uuid(call) == UUID
