# SPDX-License-Identifier: Apache-2.0
"""Volumes without a header: the passphrase is the key (plain dm-crypt). Deprecated."""

from __future__ import annotations

from typing import Any

from oslo_log import log as logging

from os_brick import exception
from os_brick.encryptors import commands, device

LOG = logging.getLogger(__name__)


class CryptsetupEncryptor(device.DeviceEncryptor):
    """A volume that is encrypted as a whole, without a header.

    A wrong passphrase cannot be told from a right one: the data reads as noise.
    """

    _kind = "PLAIN"

    def attach_volume(self, context: Any, **kwargs: Any) -> None:
        """Open the volume.

        :raises ProcessExecutionError: cryptsetup failed.
        :raises WrongVolume: there is a mapping of its name on another device, or the device holds
            a LUKS volume.
        :raises DeviceInUse: somebody else uses the device.
        """
        LOG.warning(
            "Plain dm-crypt is deprecated: a wrong key destroys data silently. Use LUKS for new "
            "volumes and move old ones (%s).",
            self.symlink_path,
        )
        super().attach_volume(context, **kwargs)

    def extend_volume(self, context: Any, **kwargs: Any) -> int | None:
        """Refuse.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError("Volumes of plain dm-crypt cannot be extended while attached")

    def _open_volume(self, passphrase: str, **kwargs: Any) -> None:
        """Open the volume."""
        more = commands.options(kwargs)
        passphrase = self._hidden(passphrase)
        with self._call("Opening", kwargs) as call:
            if commands.is_luks(self.host, call, self.dev_path).code == 0:
                # The first write would destroy its header, and all of its data with it.
                raise exception.WrongVolume(
                    device=self.symlink_path,
                    reason="It holds a LUKS volume, which must not be used as a plain one.",
                )
            commands.open_plain(
                self.host, call, passphrase, more, self.dev_path, self.dev_name
            ).check()
