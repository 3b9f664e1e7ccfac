# SPDX-License-Identifier: Apache-2.0
"""Volumes with a LUKS header: the passphrase opens the key that is in it."""

from __future__ import annotations

import logging
from typing import Any

from oslo_concurrency import processutils

from os_brick import exception, executor, utils
from os_brick.encryptors import commands, device, first_use
from os_brick.encryptors import mapping as mappings
from os_brick.initiator.linux import block
from os_brick.initiator.linux.call import Call

LOG = logging.getLogger(__name__)

_FORMAT_TRIES = 3


def is_luks(
    root_helper: str | None, device: str, execute: executor.ExecuteFunction | None = None
) -> bool:
    """Tell whether a device is known to hold a LUKS header.

    False also stands for "could not be found out", with a warning: no reason to format it.
    ``LuksEncryptor._format_volume`` looks for itself.

    :param device: path of the device.
    """
    runner = executor.Executor(root_helper, execute)
    words = ("cryptsetup", "isLuks", "--verbose", device)
    try:
        runner._execute(*words, run_as_root=True, root_helper=root_helper, check_exit_code=True)
    except (processutils.ProcessExecutionError, OSError) as exc:
        LOG.warning(
            "isLuks exited abnormally (status %(exit_code)s): %(stderr)s",
            {
                "exit_code": getattr(exc, "exit_code", None),
                "stderr": getattr(exc, "stderr", None) or str(exc),
            },
        )
        return False
    return True


class LuksEncryptor(device.DeviceEncryptor):
    """A volume with a LUKS header; it is formatted as LUKS1 at its first use."""

    _kind = "LUKS"
    _close_verb = "luksClose"

    def attach_volume(self, context: Any, **kwargs: Any) -> None:
        """Open the volume; format it first if it has never been used.

        It has never been used if cryptsetup says that it is no LUKS volume, its start can be read,
        and nothing known is found on it.

        :raises ProcessExecutionError: cryptsetup failed; exit code 2: wrong passphrase.
        :raises FormatRefused: it could not be opened, and is not known to be empty.
        :raises WrongVolume: there is a mapping of its name on another device.
        :raises DeviceInUse: somebody else uses the device.
        """
        super().attach_volume(context, **kwargs)

    def extend_volume(self, context: Any, **kwargs: Any) -> int | None:
        """Have the open volume take all of its device, after the connector's own extend.

        :returns: size of what is decrypted in bytes: that of the device less the header. None if
            it could not be read.
        :raises VolumeDeviceNotFound: the volume is not open.
        :raises ProcessExecutionError: cryptsetup failed; exit code 2: wrong passphrase.
        """
        passphrase = self._get_encryption_key_as_passphrase(context)
        with self._call("Extension", kwargs) as call:
            found = mappings.find(self.host, self.dev_name, thoroughly=True)
            if found is not None and not self._is_mine(found):
                self._check_mine(found, self._find_device(found))
            commands.resize(self.host, call, passphrase, self.dev_name).check()
            if found is not None:
                return block.read_size(self.host.sysfs, found.name)
        # With an execute function of the service's own, the mapping may be out of our sight.
        return utils.get_device_size(self, self.symlink_path)

    def _format_volume(self, passphrase: str, **kwargs: Any) -> None:
        """Make a LUKS1 volume of the device. Nova calls this, for volumes that QEMU opens.

        :raises FormatRefused: it is not known to be empty.
        :raises ProcessExecutionError: cryptsetup failed.
        """
        self._format_luks_volume(passphrase, "luks1", **kwargs)

    def _format_luks_volume(self, passphrase: str, version: str, **kwargs: Any) -> None:
        """Make a LUKS volume of the device, if it is known to be empty.

        :param version: ``"luks1"`` or ``"luks2"``.
        """
        more = commands.options(kwargs)
        passphrase = self._hidden(passphrase)
        with self._call("Formatting", kwargs) as call:
            for attempt in range(1, _FORMAT_TRIES + 1):
                raw = self._find_device()
                if raw is None:
                    raise exception.FormatRefused(
                        device=self.symlink_path, reason="its device is not to be seen."
                    )
                first_use.check(self.host, call, raw)
                LOG.info("Formatting %s as %s at its first use", raw.path, version)
                result = commands.format_luks(self.host, call, passphrase, version, more, raw.path)
                if result.code in (0, None) or attempt == _FORMAT_TRIES:
                    break
                call.pause(attempt)
            result.check()

    def _open_volume(self, passphrase: str, **kwargs: Any) -> None:
        """Open the volume, after formatting it if it is known to be empty."""
        passphrase = self._hidden(passphrase)
        with self._call("Opening", kwargs) as call:
            result = commands.open_luks(self.host, call, passphrase, self.dev_path, self.dev_name)
            if result.code == commands.WRONG_PARAMETERS and not self._holds_luks(call):
                try:
                    self._format_volume(passphrase, call=call, **kwargs)
                except exception.FormatRefused as exc:
                    raise exc from result.error
                result = commands.open_luks(
                    self.host, call, passphrase, self.dev_path, self.dev_name
                )
            result.check()

    def _holds_luks(self, call: Call) -> bool:
        return commands.is_luks(self.host, call, self.dev_path).code == 0

    def _check_passphrase(self, call: Call, passphrase: str) -> None:
        commands.try_passphrase(self.host, call, passphrase, self.dev_path).check()


class Luks2Encryptor(LuksEncryptor):
    """A volume with a LUKS header; it is formatted as LUKS2 at its first use.

    LUKS2 needs cryptsetup 2.0.0 or later.
    """

    def _format_volume(self, passphrase: str, **kwargs: Any) -> None:
        """Make a LUKS2 volume of the device.

        :raises FormatRefused: it is not known to be empty.
        :raises ProcessExecutionError: cryptsetup failed.
        """
        self._format_luks_volume(passphrase, "luks2", **kwargs)
