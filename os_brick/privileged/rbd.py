# SPDX-License-Identifier: Apache-2.0
"""Ceph configuration files that only root may read, for volumes that the kernel maps.

They hold a cephx key. All are named ``brickrbd_…``, and lie in a folder below ``/run`` that only
root may enter: they outlive the service, as the mapping does, but not the host's uptime, which the
mapping does not outlive either.
"""

from __future__ import annotations

import importlib
import os
import re
import secrets
import stat
from typing import Any

from os_brick import privileged
from os_brick.privileged import guarded

FOLDER = "/run/os-brick"
PREFIX = "brickrbd_"

_NAME = re.compile(rf"{PREFIX}[\w.\-]{{1,200}}", re.ASCII)
_READ_BYTES = 4096
_READ_LIMIT_S = 60.0


def get_rbd_class() -> Any:
    """Return the connector's class, whose rules for configuration files hold here too."""
    # By name: the privileged side does not import what is above it until it is asked for this.
    return importlib.import_module("os_brick.initiator.connectors.rbd").RBDConnector


@privileged.default.entrypoint
def store_conf(name: str, text: str) -> str:
    """Write a configuration file that only root can read, whole or not at all; return its path.

    :param name: file name, ``brickrbd_…``; a file of that name is replaced.
    :raises OSError: it could not be written; nothing is left.
    """
    return _store(guarded.checked(_NAME, name, "configuration file"), text)


def _store(name: str, text: str) -> str:
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    path = os.path.join(FOLDER, name)
    partial = f"{path}.{secrets.token_hex(6)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(partial, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(partial, path)
    except OSError:
        _remove(partial)
        raise
    return path


@privileged.default.entrypoint
def delete_if_exists(path: str) -> None:
    """Delete a configuration file; a missing one is no error.

    :param path: absolute path of a regular file ``…/brickrbd_…``.
    :raises ValueError: it is no such path.
    """
    if not os.path.isabs(path) or not _NAME.fullmatch(os.path.basename(path)):
        raise ValueError(f"configuration file: {path!r} is not valid here")
    _remove(path)


def _remove(path: str) -> None:
    try:
        if stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return


@privileged.default.entrypoint
def root_create_ceph_conf(
    monitor_ips: list[str],
    monitor_ports: list[str],
    cluster_name: str,
    user: str | None,
    keyring: str | None,
) -> str:
    """Write a configuration file that only root can read, by a name that nobody can guess.

    :param keyring: content of a keyring; None for that of the user in ``/etc/ceph``.
    :returns: its path; whoever asked for it deletes it.
    :raises BrickException: the arguments cannot be used, or the keyring cannot be read.
    """
    properties = {
        "hosts": monitor_ips,
        "ports": monitor_ports,
        "cluster_name": cluster_name,
        "auth_username": user,
        "keyring": keyring,
    }
    text = get_rbd_class().configuration_text(properties)
    return _store(f"{PREFIX}{secrets.token_hex(16)}", text)


@privileged.default.entrypoint
def check_valid_path(path: str) -> bool:
    """Tell whether a device or file can be read: its first 4096 bytes."""
    return is_readable(path)


def is_readable(path: str) -> bool:
    """Tell the same with this process's own rights. It takes no longer than a minute."""

    def read() -> bool:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.read(descriptor, _READ_BYTES)
        finally:
            os.close(descriptor)
        return True

    try:
        return bool(guarded.within(_READ_LIMIT_S, read, f"a read of {path}"))
    except (OSError, ValueError):
        return False
