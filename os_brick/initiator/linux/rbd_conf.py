# SPDX-License-Identifier: Apache-2.0
"""The configuration file of a librbd handle: a key for this process, and gone with it.

librados wants a file by name. So that the key is nowhere once the handle is closed, or the process
is dead in whatever way, the content is in memory (``memfd_create(2)``) and the file's name is a
link to it by way of ``/proc``. What a killed process leaves is a link to nothing; the next handle
removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile

from oslo_log import log as logging

from os_brick import exception
from os_brick.i18n import _
from os_brick.initiator.linux.rbd_volume import RbdVolume
from os_brick.initiator.linux.sysfs import Tree
from os_brick.privileged import rbd as privileged_rbd

LOG = logging.getLogger(__name__)

PREFIX = privileged_rbd.PREFIX


def read_keyring(etc: Tree, volume: RbdVolume) -> str:
    """Return the keyring's content: the volume's own, else the host's file for its user.

    :param etc: the host's ``/etc``.
    :returns: ``""`` where there is no user, since cephx is off then.
    :raises BrickException: the file cannot be read.
    """
    if volume.keyring is not None:
        return volume.keyring
    if not volume.user:
        return ""
    name = f"ceph/{volume.cluster}.client.{volume.user}.keyring"
    try:
        data = etc.data(name)
        if data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise exception.BrickException(
            _("Keyring path /etc/%(name)s is not readable: %(reason)s.")
            % {"name": name, "reason": reason}
        ) from exc
    return data.decode("utf-8", "replace")


class HandleConf:
    """A configuration file that is there until :meth:`remove`, at most as long as this process.

    Its owner and root can read it by :attr:`path`, also from other processes.

    :raises OSError: it could not be made; nothing is left.
    """

    def __init__(self, text: str) -> None:
        folder = tempfile.gettempdir()
        remove_dead(folder)
        self._descriptor = os.memfd_create(PREFIX, os.MFD_CLOEXEC)
        self._is_there = True
        self._owner = os.getpid()
        self.path = os.path.join(folder, f"{_mark()}{os.getpid()}_{secrets.token_hex(8)}")
        try:
            os.fchmod(self._descriptor, 0o600)
            with os.fdopen(os.dup(self._descriptor), "wb") as file:
                file.write(text.encode())
            os.symlink(f"/proc/{os.getpid()}/fd/{self._descriptor}", self.path)
        except OSError:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove it; a second time does nothing."""
        if not self._is_there:
            return
        self._is_there = False
        if self._owner == os.getpid():  # a forked child has a copy of this object
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        os.close(self._descriptor)


def _mark() -> str:
    """Return how names of this process's files begin: process numbers mean something only among
    processes of one namespace."""
    return f"{PREFIX}{os.stat('/proc/self/ns/pid').st_ino:x}_"


def remove_dead(folder: str) -> None:
    """Remove links that processes left which are dead; what cannot be removed stays."""
    try:
        mark, names = _mark(), os.listdir(folder)
    except OSError as exc:
        LOG.debug("Not looking for dead links in %s: %s", folder, exc)
        return
    for name in names:
        path = os.path.join(folder, name)
        if name.startswith(mark) and os.path.islink(path) and _is_dead(path):
            with contextlib.suppress(OSError):
                os.unlink(path)


def _is_dead(link: str) -> bool:
    """Tell whether a link certainly leads nowhere: some processes let nobody look."""
    try:
        os.stat(link)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
