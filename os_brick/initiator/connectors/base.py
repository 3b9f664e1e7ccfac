# SPDX-License-Identifier: Apache-2.0
"""Base of the connectors of Linux hosts."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, executor, initiator, masking, opts, utils
from os_brick.initiator import host_driver, initiator_connector
from os_brick.initiator.linux import nodes, scsi_resize
from os_brick.initiator.linux.call import Call, public_call
from os_brick.initiator.linux.doors import HasHost
from os_brick.initiator.linux.multipath import Map
from os_brick.initiator.linux.scsi import Disk

LOG = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])

_LINK_LIMIT_S = 60.0
_DEV = "/dev/"
_MAPPER = "/dev/mapper/"


def synchronized(
    name: str,
    lock_file_prefix: str = "os-brick-",
    external: bool = False,
    lock_path: str | None = None,
    semaphores: Any = None,
    delay: float = 0.01,
    fair: bool = False,
    blocking: bool = True,
) -> Callable[[F], F]:
    """Decorate a function to run under a named lock of oslo.concurrency.

    As ``oslo_concurrency.lockutils.synchronized``, but the directory is looked up at the call:
    ``lock_path``, else ``[os_brick] lock_path`` (:func:`os_brick.opts.get_lock_path`). For
    connectors outside this library; those inside have finer locks
    (:mod:`os_brick.initiator.linux.locking`).
    """

    def wrap(function: F) -> F:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            from oslo_concurrency import lockutils  # most callers never take such a lock

            path = lock_path or (opts.get_lock_path() if external else None)
            with lockutils.lock(
                name,
                lock_file_prefix,
                external,
                path,
                do_log=True,
                semaphores=semaphores,
                delay=delay,
                fair=fair,
                blocking=blocking,
            ):
                return function(*args, **kwargs)

        return inner  # type: ignore[return-value]

    return wrap


def known_wwid(device_info: Any) -> str:
    """Return the identity that a volume had when it was attached, if the caller passes it back."""
    if not isinstance(device_info, dict):
        return ""
    wwid = device_info.get("multipath_id") or device_info.get("scsi_wwn") or ""
    return wwid if isinstance(wwid, str) else ""


class Volume(Protocol):
    """What a connector locks: a value made of connection properties."""

    @property
    def lock_names(self) -> list[str]:
        """Names of the locks that calls for the same volume have in common."""


class BaseLinuxConnector(initiator_connector.InitiatorConnector, HasHost):
    """What the connectors of Linux hosts have in common.

    :param host: the doors to the host, for tests (:class:`~os_brick.initiator.linux.host.Host`).
    """

    os_type = initiator.OS_TYPE_LINUX

    # Whether a volume's device may be there after its detach, as a namespace of a subsystem that is
    # still in use.
    _device_may_stay: ClassVar[bool] = True

    def __init__(
        self,
        root_helper: str | None,
        driver: Any = None,
        execute: executor.ExecuteFunction | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.use_multipath: bool = bool(kwargs.pop("use_multipath", False))
        super().__init__(
            root_helper,
            driver or host_driver.HostDriver(),
            execute,
            kwargs.pop("device_scan_attempts", initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT),
            *args,
            **kwargs,
        )

    def _link_root(self, target: str, link_name: str) -> None:
        """Make or replace a symbolic link as root (for :mod:`os_brick.utils`)."""
        self.host.changes.link(
            Call(f"link {link_name}", self.host.clock, _LINK_LIMIT_S), target, link_name
        )

    def _unlink_root(self, *links: str) -> None:
        """Remove links as root (for :mod:`os_brick.utils`)."""
        self.host.changes.unlink(Call(f"unlink {links}", self.host.clock, _LINK_LIMIT_S), *links)

    def _has_link(self, link: str) -> bool:
        """Tell whether there is a link of this name (for :mod:`os_brick.utils`)."""
        return self.host.dev.link_target(link.removeprefix(_DEV)) is not None

    def _device_instance(self, path: str) -> int | None:
        """Return what tells the block device at a path from a later one of its name; None if there
        is none (for :mod:`os_brick.utils`)."""
        name = nodes.kernel_name(self.host, path)
        return None if name is None else self.host.sysfs.instance("class/block", name)

    def _link_instance(self, link: str) -> object:
        """Return what tells a link from a later one of its name; None if there is none (for
        :mod:`os_brick.utils`)."""
        try:
            found = os.lstat(self.host.dev.path(link.removeprefix(_DEV)))
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _is_link_of_another(
        self,
        link: str,
        path: str,
        before: tuple[object, object],
        connection_properties: Mapping[str, Any],
    ) -> bool:
        """Tell, after a detach, whether the link named after its device's path belongs to another
        volume, to which the kernel has given the device's name.

        It may have had it before already: a detach may come late, or once more.

        :param before: the device at the path before the detach, None if there was none; and the
            link as it was then.
        """
        now = self._device_instance(path)
        if now is None:
            return False
        device, own_link = before
        if now != device:  # the next one's user has made a link of his own, or has none
            return self._link_instance(link) != own_link
        if not self._device_may_stay or self._leads_to_mapping(link):
            return True
        return not self._is_device_of(path, connection_properties)

    def _is_device_of(self, path: str, connection_properties: Mapping[str, Any]) -> bool:
        """Tell whether the device that is at a path after the volume's detach is the volume's."""
        return True

    def _leads_to_mapping(self, link: str) -> bool:
        """Tell whether a link leads to a mapping that is there, of an encryptor."""
        target = self.host.dev.link_target(link.removeprefix(_DEV)) or ""
        return target.startswith(_MAPPER) and nodes.real_node(self.host, target) is not None

    @contextlib.contextmanager
    def _public_call(self, operation: str) -> Iterator[Call]:
        """Give a public call its deadline and tell its timeline at the end."""
        with public_call(operation, self.host.clock, cfg.CONF.os_brick.call_timeout) as call:
            yield call

    def _volume_lock(self, call: Call, volume: Volume) -> contextlib.AbstractContextManager[None]:
        """Return what calls for the same volume exclude each other by."""
        return self.host.locks.held(call, volume.lock_names)

    @contextlib.contextmanager
    def _detaching(
        self, volume: Volume, force: bool, ignore_errors: bool
    ) -> Iterator[tuple[Call, exception.ExceptionChainer]]:
        """Hold the volume's lock and settle what the errors of a detach come to.

        With ``force`` those that leave the block, and those that it put into the chainer, are
        raised at the end, or not at all with ``ignore_errors``; without it the first one is raised
        at once.
        """
        errors = exception.ExceptionChainer()
        with self._public_call(f"Detach of {volume}") as call:
            begun = False
            try:
                with errors.context(force), self._volume_lock(call, volume):
                    begun = True
                    yield call, errors
            except Exception:
                self._warn_of_leftovers(volume)
                raise
            if errors:
                self._warn_of_leftovers(volume)
                # Nothing was attempted without the lock, so there is nothing to be ignored.
                if not (ignore_errors and begun):
                    raise errors

    @staticmethod
    def _warn_of_leftovers(volume: Volume) -> None:
        LOG.warning("There were errors removing %s, leftovers may remain in the system", volume)

    def _extend(
        self,
        call: Call,
        connection_properties: dict[str, Any],
        disks: Sequence[Disk],
        maps: Sequence[Map],
    ) -> int:
        """Have all paths and the map of a SCSI volume take its new size, and return it in bytes.

        :raises VolumePathsNotFound: it has no paths.
        """
        if not disks:
            LOG.warning(
                "Couldn't find any volume paths on the host to extend volume for %s",
                masking.masked(connection_properties),
            )
            raise exception.VolumePathsNotFound()
        return scsi_resize.extend(self.host, call, disks, maps[0] if maps else None)

    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the caller's wishes for multipath; whether they can be met is asked at each
        attach."""
        return {
            "multipath": kwargs["multipath"],
            "enforce_multipath": kwargs["enforce_multipath"],
        }

    def check_valid_device(self, path: str, run_as_root: bool = True) -> bool:
        """Tell whether a device can be read: one block, as root, and not from memory."""
        return utils.check_valid_device(self, path)

    def get_all_available_volumes(
        self, connection_properties: dict[str, Any] | None = None
    ) -> list[str]:
        """Return the path of every entry of the search path; an empty list if it is no
        directory."""
        path = self.get_search_path()
        if not path or not os.path.isdir(path):
            return []
        return [os.path.join(path, name) for name in os.listdir(path)]

    def supports_multipath(self) -> bool:
        """Tell whether the host can make multipath devices of this protocol."""
        return False

    def check_multipath(self, connection_properties: dict[str, Any]) -> bool:
        """Tell whether multipath is wanted and the host can do it; warn if it is wanted and cannot.

        :raises BrickException: it is wanted and enforced, and the host cannot do it.
        """
        if not self.use_multipath:
            return False
        if self.supports_multipath():
            return True
        if connection_properties.get("enforce_multipath"):
            raise exception.BrickException(
                "Multipathing is enforced but the host doesn't support multipathing."
            )
        LOG.warning("Multipathing is requested but the host doesn't support multipathing.")
        return False
