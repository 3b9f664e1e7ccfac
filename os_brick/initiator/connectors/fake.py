# SPDX-License-Identifier: Apache-2.0
"""Connectors for tests of services: they attach nothing."""

from __future__ import annotations

from typing import Any

from os_brick.initiator.connectors import base, base_iscsi


class FakeConnector(base.BaseLinuxConnector):
    """Hands out a path at which there is nothing."""

    fake_path = "/dev/vdFAKE"

    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Return ``{"type": "fake", "path": "/dev/vdFAKE"}``."""
        return {"type": "fake", "path": self.fake_path}

    def disconnect_volume(
        self,
        connection_properties: dict[str, Any],
        device_info: Any,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Do nothing."""

    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return a list of the path."""
        return [self.fake_path]

    def get_search_path(self) -> str:
        """Return the directory of links by path."""
        return "/dev/disk/by-path"

    def extend_volume(self, connection_properties: dict[str, Any]) -> int | None:
        """Return None: the size is unknown."""
        return None

    def get_all_available_volumes(
        self, connection_properties: dict[str, Any] | None = None
    ) -> list[str]:
        """Return two paths."""
        return ["/dev/disk/by-path/fake-volume-1", "/dev/disk/by-path/fake-volume-X"]


class FakeBaseISCSIConnector(FakeConnector, base_iscsi.BaseISCSIConnector):
    """The same, as an iSCSI connector."""
