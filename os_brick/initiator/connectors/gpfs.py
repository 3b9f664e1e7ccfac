# SPDX-License-Identifier: Apache-2.0
"""Volumes that are files of a GPFS file system on this host."""

from __future__ import annotations

from typing import Any, ClassVar

from os_brick.i18n import _
from os_brick.initiator.connectors import local


class GPFSConnector(local.LocalConnector):
    """Hands out the path of a file."""

    _volume_type: ClassVar[str] = "gpfs"
    _no_path: ClassVar[str] = _("Invalid connection_properties specified no device_path attribute.")

    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Return the path.

        :returns: ``{"type": "gpfs", "path": device_path}``.
        :raises ValueError: there is no ``device_path`` in the properties.
        :raises VolumeDeviceNotFound: nothing is there.
        """
        return super().connect_volume(connection_properties)
