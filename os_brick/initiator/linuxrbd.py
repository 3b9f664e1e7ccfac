# SPDX-License-Identifier: Apache-2.0
"""RBD images by librbd: a connection, an open image, and a file object over it.

The bindings are Ceph's own (``python3-rados``, ``python3-rbd``); importing works without them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from oslo_log import log as logging

from os_brick import exception, utils
from os_brick.i18n import _

try:
    import rados
    import rbd
except ImportError:
    rados = None
    rbd = None

LOG = logging.getLogger(__name__)

_SET, _CURRENT, _END = io.SEEK_SET, io.SEEK_CUR, io.SEEK_END


class RBDClient:
    """A connection to a Ceph cluster and one of its pools; a context manager that ends it.

    :param user: cephx user without ``client.``; None where cephx is off.
    :param pool: name of the pool.
    :param kwargs: ``conffile`` (``/etc/ceph/ceph.conf``), ``rbd_cluster_name`` (``ceph``), and the
        modules ``rados`` and ``rbd`` in place of Ceph's own. Others are ignored.
    :raises InvalidParameterValue: the bindings are not installed.
    :raises BrickException: no connection, or no such pool; nothing is left open.
    """

    def __init__(self, user: Any, pool: Any, *args: Any, **kwargs: Any) -> None:
        self.rbd_user = utils.convert_str(user)
        self.rbd_pool = utils.convert_str(pool)
        self.rados = kwargs.get("rados", rados)
        self.rbd = kwargs.get("rbd", rbd)
        for module, name in ((self.rados, "rados"), (self.rbd, "rbd")):
            if module is None:
                raise exception.InvalidParameterValue(err=_("%s module required") % name)
        self.rbd_conf = kwargs.get("conffile", "/etc/ceph/ceph.conf")
        self.rbd_cluster_name = kwargs.get("rbd_cluster_name", "ceph")
        self.client, self.ioctx = self.connect()
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disconnect()

    def connect(self) -> tuple[Any, Any]:
        """Connect anew.

        :returns: the cluster handle and the pool's I/O context of the ``rados`` module.
        :raises BrickException: with Ceph's own words; what was opened is closed again.
        """
        LOG.debug("Opening a connection to Ceph, pool %s", self.rbd_pool)
        client = None
        try:
            # Only text: older bindings refuse bytes (bug 1612290).
            client = self.rados.Rados(
                rados_id=self.rbd_user,
                clustername=utils.convert_str(self.rbd_cluster_name),
                conffile=utils.convert_str(self.rbd_conf),
            )
            client.connect()
            return client, client.open_ioctx(self.rbd_pool)
        except BaseException as exc:
            if client is not None:
                client.shutdown()
            if isinstance(exc, self.rados.Error):
                text = _("Error connecting to ceph cluster.")
                LOG.warning("%s Pool %s: %s", text, self.rbd_pool, exc)
                raise exception.BrickException(f"{text} {exc}".rstrip()) from exc
            raise

    def disconnect(self) -> None:
        """End the connection; a second time does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self.ioctx.close()
        finally:
            self.client.shutdown()


class RBDVolume:
    """An open image; closing it ends the connection it came by, too.

    Attributes that it does not have itself are those of the image (``rbd.Image``).

    :param client: an :class:`RBDClient`; it is ended also if the image cannot be opened.
    :param name: name of the image.
    :param snapshot: name of a snapshot of it; None for the image itself.
    :raises rbd.Error: as the bindings raise it (``ImageNotFound`` for one).
    """

    def __init__(
        self, client: Any, name: Any, snapshot: Any = None, read_only: bool = False
    ) -> None:
        self.client = client
        self.name = utils.convert_str(name)
        self.read_only = read_only or snapshot is not None
        self._is_open = False
        try:
            self.image = client.rbd.Image(
                client.ioctx,
                self.name,
                snapshot=utils.convert_str(snapshot),
                read_only=read_only,
            )
        except BaseException as exc:
            LOG.warning("Error opening rbd image %s: %s", self.name, exc)
            client.disconnect()
            raise
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name == "image":  # it was never opened
            raise AttributeError(name)
        return getattr(self.image, name)

    def close(self) -> None:
        """Close the image and, whatever comes of it, the connection; a second time does
        nothing."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self.image.close()
        finally:
            self.client.disconnect()


class RBDImageMetadata:
    """What :class:`RBDVolumeIOWrapper` knows of an image.

    :param image: an open image: :class:`RBDVolume`, or a service's own of that kind.
    :param conf: the configuration file by which it was opened.
    """

    def __init__(self, image: Any, pool: Any, user: Any, conf: Any) -> None:
        self.image = image
        self.pool: str = utils.convert_str(pool or "")
        self.user: str = utils.convert_str(user or "")
        self.conf: str = utils.convert_str(conf or "")


class RBDVolumeIOWrapper(io.RawIOBase):
    """A binary file over an open image: readable, writable, seekable.

    It can be handed to whatever takes such a file (``shutil``, ``io.BufferedReader``,
    ``requests``). It has no file descriptor. One thread at a time may use it.
    """

    def __init__(self, rbd_volume: RBDImageMetadata) -> None:
        super().__init__()
        self._rbd_volume = rbd_volume
        self._offset = 0
        self._known_size = 0
        self._when_closed: list[Callable[[], object]] = []

    @property
    def rbd_image(self) -> Any:
        """The open image."""
        return self._rbd_volume.image

    @property
    def rbd_user(self) -> str:
        """The cephx user by which it was opened, or ``""``."""
        return self._rbd_volume.user

    @property
    def rbd_pool(self) -> str:
        """The image's pool."""
        return self._rbd_volume.pool

    @property
    def rbd_conf(self) -> str:
        """The configuration file by which it was opened; it is there as long as this is open."""
        return self._rbd_volume.conf

    def when_closed(self, action: Callable[[], object]) -> None:
        """Have something done once this is closed, also by the garbage collector."""
        self._when_closed.append(action)

    # -- what it can --------------------------------------------------------------------------
    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed RBD image")

    def readable(self) -> bool:
        """Return True."""
        self._check_open()
        return True

    def writable(self) -> bool:
        """Tell whether the image was opened for writing."""
        self._check_open()
        return getattr(self.rbd_image, "read_only", False) is not True

    def seekable(self) -> bool:
        """Return True."""
        self._check_open()
        return True

    def fileno(self) -> int:
        """There is none.

        :raises io.UnsupportedOperation: always; by this class ``requests`` knows to measure the
            file by seeking.
        """
        raise io.UnsupportedOperation(_("fileno() not supported by RBD()"))

    # -- reading and writing ------------------------------------------------------------------
    def read(self, length: int | None = None) -> bytes:
        """Read from the current position, and move on by what came.

        :param length: bytes; None or negative for all that is left, in one piece.
        :returns: fewer bytes at the end of the image, ``b""`` there and beyond.
        :raises rbd.Error: as librbd raises it; the position has not moved.
        """
        self._check_open()
        wanted = self._available(length)
        if wanted == 0:
            return b""
        try:
            data: bytes = self.rbd_image.read(self._offset, wanted)
        except Exception:
            # The image may have shrunk: its size is asked for anew at the next read.
            self._known_size = 0
            LOG.exception("exception encountered during image read")
            raise
        self._offset += len(data)
        return data

    def _available(self, length: int | None) -> int:
        """Return how many of ``length`` bytes the image has from the current position on.

        librbd is asked for the size only by reads that seem to end beyond the image.
        """
        to_the_end = length is None or length < 0
        end = self._known_size + 1 if to_the_end else self._offset + (length or 0)
        if end > self._known_size:
            self._known_size = self.rbd_image.size()
        end = self._known_size if to_the_end else min(end, self._known_size)
        return max(0, end - self._offset)

    def readinto(self, buffer: Any) -> int:
        """Read into a writable buffer; returns the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Read all that is left."""
        return self.read()

    def write(self, data: Any) -> int:
        """Write at the current position, and move on.

        :param data: bytes, or another buffer of bytes.
        :returns: the number of bytes; all or an error.
        :raises rbd.Error: as librbd raises it; the position has not moved.
        """
        self._check_open()
        content = data if isinstance(data, bytes) else bytes(memoryview(data).cast("B"))
        self.rbd_image.write(content, self._offset)
        self._offset += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = _SET) -> int:
        """Set the position, beyond the end if so wanted, and return it.

        :param whence: 0 from the beginning, 1 from here, 2 from the end.
        :raises OSError: it would be negative, or another ``whence``; nothing has changed.
        """
        self._check_open()
        if whence == _SET:
            position = offset
        elif whence == _CURRENT:
            position = self._offset + offset
        elif whence == _END:
            self._known_size = self.rbd_image.size()
            position = self._known_size + offset
        else:
            raise OSError(_("Invalid argument - whence=%s not supported") % whence)
        if position < 0:
            raise OSError(_("Invalid argument - the position would be %s") % position)
        self._offset = position
        return position

    def tell(self) -> int:
        """Return the position."""
        self._check_open()
        return self._offset

    def flush(self) -> None:
        """Have everything that was written reach the cluster.

        :raises ValueError: this is closed.
        :raises rbd.Error: it could not be done.
        """
        super().flush()
        image = self.rbd_image
        if _closed_underneath(image):
            LOG.warning(
                "RBD image %s was closed (probably by the garbage collector) before its handle",
                getattr(image, "name", ""),
            )
            return
        try:
            flush = image.flush
        except AttributeError:
            LOG.warning("flush() not supported in this version of librbd")
            return
        flush()

    def close(self) -> None:
        """Flush, then close the image and its connection in any case; a second time does nothing.

        :raises rbd.Error: what was written may not have reached the cluster.
        """
        if self.closed or not hasattr(self, "_when_closed"):
            return
        errors = []
        actions = [super().close, self.rbd_image.close, *self._when_closed]
        for action in actions:
            try:
                action()
            except Exception as exc:  # noqa: BLE001 - all is closed first, then the first one is raised
                errors.append(exc)
        if errors:
            raise errors[0]


def _closed_underneath(image: Any) -> bool:
    """Tell whether an image was closed without its wrapper."""
    check = getattr(image, "require_not_closed", None)
    if check is None:
        return False
    try:
        check()
    except Exception as exc:
        # rbd.InvalidArgument; by name, since the image may be of a module that was handed in.
        if any(kind.__name__ == "InvalidArgument" for kind in type(exc).__mro__):
            return True
        raise
    return False
