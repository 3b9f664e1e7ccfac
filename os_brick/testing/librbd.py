# SPDX-License-Identifier: Apache-2.0
"""What Ceph's bindings for Python offer, over images in memory; it counts what is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os_brick.testing.ceph import Ceph, Image

_FOR_EVER_S = 1e7


class Error(Exception):
    """Base of the errors of both modules."""


class ObjectNotFound(Error):
    """There is no such pool, or no such configuration file."""


class ImageNotFound(Error):
    """There is no such image."""


class InvalidArgument(Error):
    """A closed image was used, or a read began beyond the end."""


class ReadOnlyImage(Error):
    """A write to an image that was opened for reading."""


class Bindings:
    """Stands in for both modules, ``rados`` and ``rbd``, of one cluster."""

    def __init__(self, ceph: Ceph) -> None:
        self.ceph = ceph
        #: What is open now, by kind, and how often each was opened.
        self.open = {"client": 0, "ioctx": 0, "image": 0}
        self.opened = {"client": 0, "ioctx": 0, "image": 0}
        #: The configuration file's text that each client read, and its user.
        self.clients: list[tuple[str | None, str]] = []
        #: Raised by the next operation of a name: ``connect``, ``open``, ``read``, ``flush`` …
        self.failures: dict[str, Exception] = {}
        self.size_asked = 0
        self.Error = Error
        self.ObjectNotFound = ObjectNotFound
        self.ImageNotFound = ImageNotFound
        self.InvalidArgument = InvalidArgument

    def Rados(self, **words: Any) -> _Client:
        """Make a client."""
        return _Client(self, **words)

    def Image(self, ioctx: Any, name: str, **words: Any) -> OpenImage:
        """Open an image."""
        return OpenImage(self, ioctx, name, **words)

    def count(self, kind: str, by: int) -> None:
        """Note that something was opened or closed."""
        self.open[kind] += by
        self.opened[kind] += max(by, 0)

    def step(self, name: str) -> None:
        """Fail or hang, if that was ordered."""
        failure = self.failures.pop(name, None)
        if failure is not None:
            raise failure
        world = self.ceph.world
        world.wait_for(lambda: self.ceph.state != "silent", _FOR_EVER_S)
        if self.ceph.state == "refuses":
            raise Error("[errno 111] RADOS error (error connecting to the cluster)")


class _Client:
    """``rados.Rados``"""

    def __init__(
        self, bindings: Bindings, *, rados_id: str | None, clustername: str, conffile: str
    ) -> None:
        for text in (rados_id, clustername, conffile):
            if text is not None and type(text) is not str:
                raise TypeError(f"must be text: {text!r}")
        self._bindings = bindings
        with open(conffile, encoding="utf-8") as file:
            conf = file.read()
        if not conf.startswith("[global]\n") or not conf.endswith("\n"):
            raise Error("error parsing the configuration file")
        bindings.clients.append((rados_id, conf))
        self._connected = False
        bindings.count("client", 1)
        self._is_open = True

    def connect(self) -> None:
        self._bindings.step("connect")
        self._connected = True

    def open_ioctx(self, pool: str) -> _Ioctx:
        if not self._connected:
            raise Error("not connected")
        self._bindings.step("open_ioctx")
        if not any(image.pool == pool for image in self._bindings.ceph.images):
            raise ObjectNotFound(f"[errno 2] RADOS object not found (error opening pool '{pool}')")
        return _Ioctx(self._bindings, pool)

    def shutdown(self) -> None:
        if self._is_open:
            self._is_open = False
            self._bindings.count("client", -1)


class _Ioctx:
    """``rados.Ioctx``"""

    def __init__(self, bindings: Bindings, pool: str) -> None:
        self._bindings = bindings
        self.pool = pool
        self._is_open = True
        bindings.count("ioctx", 1)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._bindings.count("ioctx", -1)


class OpenImage:
    """``rbd.Image``"""

    def __init__(
        self,
        bindings: Bindings,
        ioctx: Any,
        name: str,
        snapshot: str | None = None,
        read_only: bool = False,
    ) -> None:
        bindings.step("open")
        found = bindings.ceph.find(ioctx.pool, name)
        if found is None:
            raise ImageNotFound(f"[errno 2] RBD image not found (error opening image {name!r})")
        self._bindings = bindings
        self._image: Image = found
        self.name = name
        self.snapshot = snapshot
        self.was_read_only = read_only
        self._is_open = True
        self.flushed = 0
        bindings.count("image", 1)

    def require_not_closed(self) -> None:
        if not self._is_open:
            raise InvalidArgument("image is closed")

    def size(self) -> int:
        self.require_not_closed()
        self._bindings.size_asked += 1
        return len(self._image.content)

    def read(self, offset: int, length: int) -> bytes:
        self.require_not_closed()
        self._bindings.step("read")
        if offset + length > len(self._image.content):
            raise InvalidArgument(f"error reading {self.name} {offset}~{length}")
        return bytes(self._image.content[offset : offset + length])

    def write(self, data: bytes, offset: int) -> int:
        self.require_not_closed()
        if type(data) is not bytes:
            raise TypeError("data must be bytes")
        if self.was_read_only or self.snapshot is not None:
            raise ReadOnlyImage(f"error writing to {self.name}")
        self._bindings.step("write")
        if offset + len(data) > len(self._image.content):
            raise InvalidArgument(f"error writing {self.name} {offset}~{len(data)}")
        self._image.content[offset : offset + len(data)] = data
        return len(data)

    def flush(self) -> None:
        self.require_not_closed()
        self._bindings.step("flush")
        self.flushed += 1

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._bindings.count("image", -1)
            self._bindings.step("close")
