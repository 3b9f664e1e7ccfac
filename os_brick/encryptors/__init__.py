# SPDX-License-Identifier: Apache-2.0
"""Encryption of attached volumes on this host: which encryptor a volume needs, and its making.

A service attaches a volume with a connector, asks :func:`get_volume_encryptor` for the encryptor
that Cinder's encryption metadata names, and has it open the device. Each call may come from another
process: all that an encryptor knows, it knows from the connection information.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from os_brick import masking

if TYPE_CHECKING:
    from os_brick.encryptors.base import VolumeEncryptor
    from os_brick.executor import ExecuteFunction

LOG = logging.getLogger(__name__)

LUKS = "luks"
LUKS2 = "luks2"
PLAIN = "plain"

FORMAT_TO_FRONTEND_ENCRYPTOR_MAP = {
    LUKS: "os_brick.encryptors.luks.LuksEncryptor",
    LUKS2: "os_brick.encryptors.luks.Luks2Encryptor",
    PLAIN: "os_brick.encryptors.cryptsetup.CryptsetupEncryptor",
}

# Volume types made long ago name a class. Nova's own classes are ours by now (bug 1639293, bug
# 1658755).
LEGACY_PROVIDER_CLASS_TO_FORMAT_MAP = {
    "nova.volume.encryptors.luks.LuksEncryptor": LUKS,
    "os_brick.encryptors.luks.LuksEncryptor": LUKS,
    "LuksEncryptor": LUKS,
    "nova.volume.encryptors.cryptsetup.CryptsetupEncryptor": PLAIN,
    "os_brick.encryptors.cryptsetup.CryptsetupEncryptor": PLAIN,
    "CryptsetupEncryptor": PLAIN,
    "nova.volume.encryptors.nop.NoopEncryptor": None,
    "os_brick.encryptors.nop.NoopEncryptor": None,
    "NoOpEncryptor": None,
}

_NO_ENCRYPTOR = "os_brick.encryptors.nop.NoOpEncryptor"


def get_volume_encryptor(
    root_helper: str | None,
    connection_info: dict[str, Any],
    keymgr: Any,
    execute: ExecuteFunction | None = None,
    *args: Any,
    **kwargs: Any,
) -> VolumeEncryptor:
    """Return the encryptor of a volume.

    :param root_helper: command that gives root; handed to ``execute``.
    :param connection_info: of the volume: ``{"driver_volume_type": …, "data": {"device_path":
        …}}``.
    :param keymgr: the key manager (castellan): ``get(context, key_id)``.
    :param execute: runs every program; None for the library's own.
    :param kwargs: Cinder's encryption metadata. ``control_location``, ``front-end`` in any letter
        case, selects the encryptor by ``provider``, a format (``luks``, ``luks2``, ``plain``), an
        old class name, or a class path; any other gives one that does nothing.
    :raises ValueError: ``provider`` is a word that is no format.
    :raises ImportError: the class that ``provider`` names is not there.
    :raises VolumeEncryptionNotSupported: the volume has no device on this host.
    """
    provider = _class_path(kwargs.get("control_location"), kwargs.get("provider"))
    try:
        from oslo_utils import importutils

        encryptor: VolumeEncryptor = importutils.import_class(provider)(
            root_helper, connection_info, keymgr, execute, **kwargs
        )
    except Exception as exc:
        LOG.error(
            "Error instantiating %(provider)s: %(exception)s",
            {"provider": provider, "exception": exc},
        )
        raise
    if LOG.isEnabledFor(logging.DEBUG):
        LOG.debug(
            "Using volume encryptor '%(encryptor)s' for connection: %(connection_info)s",
            {"encryptor": provider, "connection_info": masking.masked(connection_info)},
        )
    return encryptor


def _class_path(location: object, provider: str | None) -> str:
    """Return the path of the class for a volume's encryption metadata."""
    if not isinstance(location, str) or location.lower() != "front-end":
        return _NO_ENCRYPTOR
    if provider in LEGACY_PROVIDER_CLASS_TO_FORMAT_MAP:
        LOG.warning(
            "Use of the in tree encryptor class %(provider)s by directly referencing the "
            "implementation class will be refused in a future release: name its format in the "
            "volume type",
            {"provider": provider},
        )
        provider = LEGACY_PROVIDER_CLASS_TO_FORMAT_MAP[provider]
    if provider is None:
        return _NO_ENCRYPTOR
    if provider in FORMAT_TO_FRONTEND_ENCRYPTOR_MAP:
        return FORMAT_TO_FRONTEND_ENCRYPTOR_MAP[provider]
    LOG.warning(
        "Use of the out of tree encryptor class %(provider)s will be refused in a future release",
        {"provider": provider},
    )
    return provider


def get_encryption_metadata(
    context: Any, volume_api: Any, volume_id: str, connection_info: dict[str, Any]
) -> dict[str, Any]:
    """Return Cinder's encryption metadata of a volume, if its connection says it is encrypted.

    :param volume_api: ``get_volume_encryption_metadata(context, volume_id)`` asks Cinder.
    :returns: the keywords for :func:`get_volume_encryptor`; empty if the volume is not encrypted.
    :raises Exception: whatever the API raised.
    """
    if not (connection_info.get("data") or {}).get("encrypted"):
        return {}
    try:
        metadata: dict[str, Any] = volume_api.get_volume_encryption_metadata(context, volume_id)
    except Exception as exc:
        LOG.error(
            "Failed to retrieve encryption metadata for volume %(volume_id)s: %(exception)s",
            {"volume_id": volume_id, "exception": exc},
        )
        raise
    if not metadata:
        LOG.warning("Volume %s should be encrypted but there is no encryption metadata.", volume_id)
    return metadata or {}
