# SPDX-License-Identifier: Apache-2.0
"""What every encryptor promises."""

from __future__ import annotations

import abc
from typing import Any

from os_brick import exception, executor, privileged, utils
from os_brick.initiator.linux import doors


class VolumeEncryptor(doors.HasHost, metaclass=abc.ABCMeta):
    """Opens and closes one encrypted volume.

    :param connection_info: of the volume, as the service keeps it; never changed.
    :param keymgr: the key manager: ``get(context, key_id)`` returns a managed object.
    :param kwargs: Cinder's encryption metadata; only ``encryption_key_id`` is used here, and every
        method ignores keywords that it does not know. ``host``: the doors to the host, for tests.
    """

    def __init__(
        self,
        root_helper: str | None,
        connection_info: dict[str, Any],
        keymgr: Any,
        execute: executor.ExecuteFunction | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(root_helper, execute, *args, **kwargs)
        self._key_manager = keymgr
        self.encryption_key_id = kwargs.get("encryption_key_id")

    def _get_key(self, context: Any) -> Any:
        """Return the volume's secret, as the key manager's object."""
        return self._key_manager.get(context, self.encryption_key_id)

    def _get_encryption_key_as_passphrase(self, context: Any) -> str:
        """Return the passphrase of the volume; shown as ``***`` wherever it might be logged.

        :raises Invalid: the key manager gave an empty one, which would protect nothing.
        """
        passphrase = utils.get_passphrase_from_secret(self._get_key(context))
        if not passphrase:
            raise exception.Invalid(
                f"The secret {self.encryption_key_id} of the volume is empty: a key or a "
                "passphrase is expected."
            )
        return privileged.Hidden(passphrase)

    @abc.abstractmethod
    def attach_volume(self, context: Any, **kwargs: Any) -> None:
        """Open the attached volume, so that its path leads to what is decrypted.

        :param context: of the request, for the key manager.
        :param kwargs: Cinder's encryption metadata.
        """

    @abc.abstractmethod
    def detach_volume(self, **kwargs: Any) -> None:
        """Close the volume, before the connector detaches it; nothing to do if it is closed."""

    @abc.abstractmethod
    def extend_volume(self, context: Any, **kwargs: Any) -> int | None:
        """Have the open volume take the new size that its device has taken already.

        :returns: the size of what is decrypted, in bytes; None if there is nothing to do.
        """
