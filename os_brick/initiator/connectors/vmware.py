# SPDX-License-Identifier: Apache-2.0
"""VMDK: the disk of a virtual machine of VMware's as a file, for backup and restore."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, opts, utils
from os_brick.i18n import _
from os_brick.initiator import host_driver, initiator_connector
from os_brick.initiator.linux.call import Call, Clock, SystemClock, public_call
from os_brick.initiator.vendors import vmdk, vsphere
from os_brick.initiator.vendors.vmdk_volume import VmdkVolume

LOG = logging.getLogger(__name__)

# The times of a file have steps, of two seconds on the coarsest file systems: one that was handed
# out is made to look older, so that whatever is written to it shows.
_LOOKS_OLDER_S = 10


class VmdkConnector(initiator_connector.InitiatorConnector):
    """Brings the disk of a volume to this host as a file, and back if it was changed.

    :param clock: the source of time, for tests.
    :raises BrickException: oslo.vmware is not installed.
    """

    TMP_IMAGES_DATASTORE_FOLDER_PATH = "cinder_temp"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._clock: Clock = kwargs.pop("clock", None) or SystemClock()
        self.use_multipath = bool(kwargs.pop("use_multipath", False))
        try:
            import oslo_vmware  # noqa: F401 - is it there?
        except ImportError:
            raise exception.BrickException(
                _(
                    "Missing oslo_vmware python module, ensure oslo.vmware library is installed "
                    "and available."
                )
            ) from None
        super().__init__(*args, **kwargs)
        if self.driver is None:
            self.set_driver(host_driver.HostDriver())

    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return nothing: vCenter needs to know nothing of this host."""
        return {}

    def check_valid_device(self, path: str, *args: Any, **kwargs: Any) -> bool:
        """Tell whether a file can be read: one byte of it."""
        try:
            with open(path, "rb") as file:
                return len(file.read(1)) == 1
        except OSError as exc:
            LOG.error("Failed to access the device on the path %s: %s", path, exc)
            return False

    # -- attach -------------------------------------------------------------------------------
    @utils.trace
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Download a volume's disk.

        :returns: ``{"path": the file, "last_modified": its time}``; pass it to
            :meth:`disconnect_volume`.
        :raises InvalidParameterValue: the properties cannot be used; nothing was done.
        :raises BrickException: the disk is not here; nor is anything of it.
        """
        volume = VmdkVolume.parse(connection_properties)
        with self._public_call(f"Attach of {volume}", volume) as call:
            folder = volume.vcenter.tmp_dir
            os.makedirs(folder, exist_ok=True)
            descriptor, path = tempfile.mkstemp(".vmdk", volume.id, folder)
            try:
                with (
                    os.fdopen(descriptor, "wb") as file,
                    vsphere.session(call, volume.vcenter) as session,
                ):
                    vmdk.export(session, volume, file)
                older = int(time.time()) - _LOOKS_OLDER_S
                os.utime(path, (older, older))
                return {"path": path, "last_modified": os.path.getmtime(path)}
            except BaseException:
                os.unlink(path)
                raise

    # -- detach -------------------------------------------------------------------------------
    @utils.trace
    def disconnect_volume(
        self,
        connection_properties: dict[str, Any],
        device_info: Any,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Upload the file if it was changed, in the place of the volume's disk, and delete it.

        A file that could not be uploaded stays (without ``force``), and so does the volume's disk:
        call again when the cause is gone.

        :raises NotFound: the file is not there.
        :raises InvalidParameterValue: the properties cannot be used; nothing was done.
        :raises BrickException: the volume has not what is in the file.
        :raises ExceptionChainer: what failed (with ``force``, without ``ignore_errors``).
        """
        volume = VmdkVolume.parse(connection_properties)
        path = utils.get_dev_path(connection_properties, device_info)
        errors = exception.ExceptionChainer()
        with self._public_call(f"Detach of {volume}", volume) as call:
            with errors.context(force):
                if not path or not os.path.isfile(path):
                    raise exception.NotFound(f"Vmdk: {path} not found.")
                if self._was_changed(path, device_info):
                    self._upload(call, volume, path)
            with errors.context(force):
                if path and os.path.isfile(path):
                    os.unlink(path)
            if errors:
                LOG.warning("There were errors removing %s, leftovers may remain", volume)
                if not ignore_errors:
                    raise errors

    @staticmethod
    def _was_changed(path: str, device_info: Any) -> bool:
        """Tell whether a file is not as it was handed out; also if that is not known."""
        known = device_info.get("last_modified") if isinstance(device_info, dict) else None
        return known is None or os.path.getmtime(path) != known

    def _upload(self, call: Call, volume: VmdkVolume, path: str) -> None:
        try:
            with vsphere.session(call, volume.vcenter) as session:
                vmdk.replace(session, volume, path, self.TMP_IMAGES_DATASTORE_FOLDER_PATH)
        except exception.BrickException:
            LOG.warning("%s was not put into %s", path, volume)
            raise

    # -- the rest -----------------------------------------------------------------------------
    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return an empty list: files are where the attach put them."""
        return []

    def get_search_path(self) -> None:
        """Return None: files are where the attach put them."""
        return

    def get_all_available_volumes(
        self, connection_properties: dict[str, Any] | None = None
    ) -> list[str]:
        """Return an empty list: files are where the attach put them."""
        return []

    def extend_volume(self, connection_properties: dict[str, Any]) -> NoReturn:
        """Refuse: a volume is not extended while it is a file.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def _public_call(self, operation: str, volume: VmdkVolume) -> Iterator[Call]:
        """Give a call its deadline: that of every call, and that of a transfer."""
        limit_s = cfg.CONF[opts.GROUP].call_timeout + volume.vcenter.transfer_s
        with public_call(operation, self._clock, limit_s) as call:
            yield call
