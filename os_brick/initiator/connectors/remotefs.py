# SPDX-License-Identifier: Apache-2.0
"""Volumes that are files of remote file systems: the share is mounted, the file's path returned."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from oslo_log import log as logging

from os_brick import exception, executor, initiator, utils
from os_brick.i18n import _
from os_brick.initiator.connectors import base
from os_brick.remotefs import remotefs

LOG = logging.getLogger(__name__)

_WITH_BASE = frozenset({"nfs", "glusterfs", "scality", "quobyte", "vzstorage"})
_CLIENTS: dict[str, type[remotefs.RemoteFsClient]] = {
    "scality": remotefs.ScalityRemoteFsClient,
    "vzstorage": remotefs.VZStorageRemoteFSClient,
}
# What a volume's properties may ask of mount(8): how to mount the share, not what to do instead.
_FLAGS = frozenset(
    {"-r", "--read-only", "-w", "--rw", "--read-write", "-v", "--verbose", "-n", "--no-mtab", "-s"}
)
_NOT_OPTIONS = frozenset(["bind", "rbind", "move", "remount", "loop", "helper"])


class RemoteFsConnector(base.BaseLinuxConnector):
    """Mounts the share of a volume and returns the path of its file.

    :param mount_type: ``nfs``, ``glusterfs``, ``scality``, ``quobyte`` or ``vzstorage``.
    :param kwargs: ``<type>_mount_point_base`` and ``<type>_mount_options``; ``conn``, the whole
        connection info, whose ``mount_point_base`` counts if the keyword is not given;
        ``release_mounts``: whether a disconnect unmounts a share that nobody uses (see
        :meth:`os_brick.remotefs.remotefs.RemoteFsClient.release`), False by default.
    :raises InvalidParameterValue: there is no base.
    """

    def __init__(
        self,
        mount_type: str,
        root_helper: str | None,
        driver: Any = None,
        execute: executor.ExecuteFunction | None = None,
        device_scan_attempts: int = initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self._remotefsclient: remotefs.RemoteFsClient | None = None
        self._release_mounts = bool(kwargs.pop("release_mounts", False))
        self._mount_type = mount_type.lower()
        conn = kwargs.get("conn")
        if self._mount_type in _WITH_BASE:
            key = f"{self._mount_type}_mount_point_base"
            if isinstance(conn, Mapping):
                kwargs[key] = kwargs.get(key) or conn.get("mount_point_base")
            elif not kwargs.get(key):
                LOG.warning("Connection details not present. RemoteFsClient may not initialize.")
        client = _CLIENTS.get(self._mount_type, remotefs.RemoteFsClient)
        self._remotefsclient = client(self._mount_type, root_helper, execute=execute, **kwargs)
        super().__init__(
            root_helper,
            driver,
            execute,
            *args,
            device_scan_attempts=device_scan_attempts,
            **kwargs,
        )

    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return an empty dictionary."""
        return {}

    @property
    def _client(self) -> remotefs.RemoteFsClient:
        assert self._remotefsclient is not None  # noqa: S101 - set by the constructor's first lines
        return self._remotefsclient

    def set_execute(self, execute: executor.ExecuteFunction | None) -> None:
        """Run all further programs by this function."""
        super().set_execute(execute)
        # The constructor of the base calls this, too.
        if self._remotefsclient is not None:
            self._remotefsclient.set_execute(execute)

    # -- attach and detach --------------------------------------------------------------------
    @utils.trace
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Mount the share of a volume, unless it is mounted.

        :returns: ``{"path": "<mount point>/<name>"}``.
        :raises InvalidParameterValue: properties that cannot be used; nothing was changed.
        :raises BrickException: the share is not mounted, or does not answer.
        :raises ProcessExecutionError: ``mount`` failed.
        """
        share, path = self._locate(connection_properties)
        flags = _flags(connection_properties.get("options"))
        was_mounted = self._client.is_mounted(share)
        self._client.mount(share, flags)
        if was_mounted:  # long ago, maybe: its server may be gone
            self._client.check_answers(share)
        return {"path": path}

    def _locate(self, connection_properties: Mapping[str, Any]) -> tuple[str, str]:
        """Return a volume's share, and the path of its file in the mounted share.

        :raises InvalidParameterValue: a key is missing, or the file would not be in the share.
        """
        share = _text(connection_properties, "export")
        name = _text(connection_properties, "name")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\0" in name or not parts[-1]:
            raise exception.InvalidParameterValue(
                err=_("name: %r is not the name of a file in a share") % name
            )
        return share, os.path.join(self._client.get_mount_point(share), name)

    @utils.trace
    def disconnect_volume(
        self,
        connection_properties: dict[str, Any],
        device_info: Any,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Leave the share mounted: other volumes are in it. With ``release_mounts`` unmount it if
        nobody uses it.

        :raises ProcessExecutionError: it could not be unmounted; not with ``ignore_errors``.
        """
        if not self._release_mounts:
            return
        errors = exception.ExceptionChainer()
        with errors.context(force, "Unmounting failed"):
            self._client.release(_text(connection_properties, "export"))
        if errors and not ignore_errors:
            raise errors

    # -- size, paths --------------------------------------------------------------------------
    def extend_volume(self, connection_properties: dict[str, Any]) -> int | None:
        """Not done here: whoever has the file open resizes it.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError

    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return a list of the volume's path, whether its share is mounted or not."""
        return [self._locate(connection_properties)[1]]

    def get_search_path(self) -> str | None:
        """Return the directory below which shares are mounted."""
        return self._client.get_mount_base()


def _text(properties: Mapping[str, Any], key: str) -> str:
    value = utils.convert_str(properties.get(key))
    if not value or not isinstance(value, str):
        raise exception.InvalidParameterValue(err=_("%s: missing in connection properties") % key)
    return value


def _flags(options: Any) -> list[str]:
    """Return a volume's mount options as words, if they are such.

    :raises InvalidParameterValue: they are something else, or would do something else.
    """
    words: Sequence[str] = str(utils.convert_str(options or "")).split()
    expected = False
    for word in words:
        if expected:
            _check_options(word)
            expected = False
        elif word in ("-o", "--options"):
            expected = True
        elif word.startswith("--options="):
            _check_options(word.removeprefix("--options="))
        elif word.startswith("-o"):
            _check_options(word[2:])
        elif word not in _FLAGS:
            raise exception.InvalidParameterValue(
                err=_("options: %r is no flag for the mount of a volume's share") % word
            )
    if expected:
        raise exception.InvalidParameterValue(err=_("options: nothing follows the last -o"))
    return list(words)


def _check_options(text: str) -> None:
    for option in text.split(","):
        if not option or option.startswith("-") or option.partition("=")[0] in _NOT_OPTIONS:
            raise exception.InvalidParameterValue(
                err=_("options: %r is no option for the mount of a volume's share") % option
            )
