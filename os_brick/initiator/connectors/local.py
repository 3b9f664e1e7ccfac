# SPDX-License-Identifier: Apache-2.0
"""Volumes that are on this host already: a device or a file."""

from __future__ import annotations

import os
import stat
from typing import Any, ClassVar

from os_brick import exception, utils
from os_brick.i18n import _
from os_brick.initiator.connectors import base
from os_brick.initiator.linux.call import Call

_LOOK_LIMIT_S = 60.0


class LocalConnector(base.BaseLinuxConnector):
    """Hands out the path of a device or file that is there already."""

    _volume_type: ClassVar[str] = "local"
    _no_path: ClassVar[str] = _("Invalid connection_properties specified no device_path attribute")

    def __init__(
        self, root_helper: str | None, driver: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        execute = kwargs.pop("execute", None)
        super().__init__(root_helper, driver, execute, *args, **kwargs)

    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return an empty dictionary."""
        return {}

    def _device_path(self, connection_properties: dict[str, Any]) -> str:
        path = utils.convert_str(connection_properties.get("device_path"))
        if not path or not isinstance(path, str):
            raise ValueError(self._no_path)
        return path

    @utils.trace
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Return the path.

        :returns: ``{"type": "local", "path": device_path}``.
        :raises ValueError: there is no ``device_path`` in the properties.
        :raises VolumeDeviceNotFound: nothing is there.
        """
        path = self._device_path(connection_properties)
        # An execute function of the service's own may lead to where other files are.
        if not self.has_own_execute and self._is_missing(path):
            raise exception.VolumeDeviceNotFound(device=path)
        return {"type": self._volume_type, "path": path}

    def _is_missing(self, path: str) -> bool:
        """Tell whether there certainly is nothing; a file system that does not answer is no
        proof."""
        call = Call(f"look at {path}", self.host.clock, _LOOK_LIMIT_S)
        looking = call.side_by_side({path: lambda: os.stat(path)})
        call.wait_until(looking.all_ended, what=path, event=looking.news)
        error = looking.outcomes()[path].error
        return isinstance(error, (FileNotFoundError, NotADirectoryError))

    @utils.trace
    def disconnect_volume(
        self,
        connection_properties: dict[str, Any],
        device_info: Any,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Do nothing: what was there before stays."""

    @utils.trace
    def extend_volume(self, connection_properties: dict[str, Any]) -> int | None:
        """Return the size of the device or file in bytes.

        :raises ValueError: there is no ``device_path`` in the properties.
        :raises oslo_concurrency.processutils.ProcessExecutionError: it could not be looked at.
        """
        path = self._device_path(connection_properties)
        if not path.startswith("/dev/"):
            with self._public_call(f"Size of {path}") as call:
                # As root: the service's user may not be allowed to enter its directory.
                words = ("stat", "-L", "-c", "%f %s", path)
                said = self.host.programs.run(call, *words, limit_s=_LOOK_LIMIT_S).check().out
            mode, _blank, size = said.strip().partition(" ")
            if size.isdecimal() and stat.S_ISREG(int(mode, 16)):
                return int(size)
        return utils.get_device_size(self, path)

    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return a list of the path."""
        return [self._device_path(connection_properties)]

    def get_search_path(self) -> str | None:
        """Return None."""
        return None

    def get_all_available_volumes(
        self, connection_properties: dict[str, Any] | None = None
    ) -> list[str]:
        """Return an empty list."""
        return []
