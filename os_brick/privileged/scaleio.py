# SPDX-License-Identifier: Apache-2.0
"""PowerFlex's (ScaleIO's) client on this host, as root: its driver and its file of credentials."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import os
import struct
import uuid
from collections.abc import Iterator

from os_brick import exception, privileged
from os_brick.privileged import guarded

SCINI_DEVICE_PATH = "/dev/scini"

# What the driver gets and gives: a return code, which says nothing, and for its GUID 16 bytes more.
_CODE = struct.Struct("Q")
_CODE_AND_GUID = struct.Struct("Q16s")
# The driver asks nobody; a hung one must not keep the caller.
_IOCTL_LIMIT_S = 30.0


@contextlib.contextmanager
def open_scini_device() -> Iterator[int]:
    """Open the driver's control device for reading and writing; gives its file descriptor.

    :raises OSError: it is not there, or not for this user.
    """
    fd = os.open(SCINI_DEVICE_PATH, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@privileged.default.entrypoint
def get_guid(op_code: int) -> str:
    """Return the GUID by which storage knows this host's client: hexadecimal with hyphens.

    No program is run, so it works in a container too (bug 1846483).

    :param op_code: number of the driver's request for it.
    :raises OSError: there is no such driver, or it refused.
    """
    answer = _ioctl(op_code, bytes(_CODE_AND_GUID.size))
    _code, guid = _CODE_AND_GUID.unpack(answer)
    return str(uuid.UUID(bytes=guid))


@privileged.default.entrypoint
def rescan_vols(op_code: int) -> None:
    """Have the client ask storage for its volumes and their sizes.

    :param op_code: number of the driver's request for it.
    :raises OSError: there is no such driver, or it refused.
    """
    _ioctl(op_code, bytes(_CODE.size))


def _ioctl(op_code: int, buffer: bytes) -> bytes:
    def ask() -> bytes:
        with open_scini_device() as fd:
            return fcntl.ioctl(fd, int(op_code), buffer)

    answer: bytes = guarded.within(_IOCTL_LIMIT_S, ask, f"request {op_code:#x} of the client")
    return answer


@privileged.default.entrypoint
def get_connector_username_password(
    filename: str, config_group: str, failed_over: bool
) -> tuple[str | None, str]:
    """Read the credentials of a gateway from the host's own file.

    :param filename: absolute path of an ini file.
    :param config_group: its section.
    :param failed_over: the ones of the system that volumes are replicated to.
    :returns: user name (None if the file has none) and password. The daemon logs neither.
    :raises BrickException: they cannot be read; the text quotes nothing of the file.
    """
    if not os.path.isabs(filename):
        raise exception.BrickException(f"{filename!r} is no absolute path")
    try:
        with open(filename, encoding="utf-8") as file:
            text = file.read()
    except OSError as exc:
        raise exception.BrickException(f"{filename}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise exception.BrickException(f"{filename}: not UTF-8") from None
    try:
        username, password = parse_credentials(text, config_group, failed_over)
    except exception.BrickException as exc:
        raise exception.BrickException(f"{filename}: {exc}") from None
    hidden = None if username is None else privileged.Hidden(username)
    return hidden, privileged.Hidden(password)


def parse_credentials(text: str, section: str, failed_over: bool) -> tuple[str | None, str]:
    """Return user name, where there is one, and password in the text of such a file.

    :raises BrickException: what is missing or wrong; it quotes nothing but names.
    """
    prefix = "replicating_" if failed_over else ""
    parser = configparser.ConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as exc:
        # The text of such an error has the line, which may have the password.
        raise exception.BrickException(f"no ini file ({type(exc).__name__})") from None
    if not parser.has_section(section):
        raise exception.BrickException(f"it has no section [{section}]")
    password = _value(parser, section, f"{prefix}san_password")
    if not password:
        raise exception.BrickException(f"section [{section}] has no {prefix}san_password")
    return _value(parser, section, f"{prefix}san_username") or None, password


def _value(parser: configparser.ConfigParser, section: str, name: str) -> str:
    try:
        return parser.get(section, name, fallback="")
    except configparser.InterpolationError:
        # "%%" has always stood for "%" here; a single one is taken as it is.
        return parser.get(section, name, raw=True)
