# SPDX-License-Identifier: Apache-2.0
"""Root verbs for NVMe: their arguments are checked, and a missing device is told."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from os_brick import privileged
from os_brick.privileged import nvme

WRONG = ["../nvme0", "nvme0/..", "nvme", "sda", "NVME0", "nvme0\n", "nvme0n1p1", 3, None, ""]


@pytest.fixture(autouse=True)
def in_process() -> Iterator[Any]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


@pytest.mark.parametrize("name", [*WRONG, "nvme0n1"])
def test_controllers_are_checked(name: Any) -> None:
    with pytest.raises(ValueError, match="controller"):
        nvme.write_attribute(name, 1, "delete_controller", 1)
    with pytest.raises(ValueError, match="controller"):
        nvme.identify(name, 1, 0, 1, 1)


@pytest.mark.parametrize("name", [*WRONG, "nvme0", "nvme0c1n1"])
def test_namespaces_are_checked(name: Any) -> None:
    with pytest.raises(ValueError, match="namespace"):
        nvme.read_block(name, 1)


@pytest.mark.parametrize("attribute", ["reset_controller", "../state", "", "state"])
def test_attributes_are_checked(attribute: str) -> None:
    with pytest.raises(ValueError, match="attribute"):
        nvme.write_attribute("nvme0", 1, attribute, 1)


@pytest.mark.parametrize("structure", [1, 4, 6, -1, "0"])
def test_questions_are_checked(structure: Any) -> None:
    with pytest.raises(ValueError, match="structure"):
        nvme.identify("nvme0", 1, structure, 1, 1)


def test_a_controller_that_is_gone() -> None:
    assert nvme.write_attribute("nvme987654", 1, "delete_controller", 5) is False
    with pytest.raises(FileNotFoundError):
        nvme.identify("nvme987654", 1, 3, 1, 5)
    with pytest.raises(FileNotFoundError):
        nvme.read_block("nvme987654n1", 5)


def test_the_layout_of_the_command() -> None:
    """``struct nvme_admin_cmd`` has 72 bytes; NVME_IOCTL_ADMIN_CMD is 0xC0484E41."""
    assert ctypes.sizeof(nvme.AdminCommand) == 72
    assert nvme.IOCTL_ADMIN_CMD == 0xC0484E41
