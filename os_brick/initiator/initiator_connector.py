# SPDX-License-Identifier: Apache-2.0
"""What each connector promises to the services."""

from __future__ import annotations

import abc
from typing import Any

from os_brick import exception, executor, initiator


class InitiatorConnector(executor.Executor, metaclass=abc.ABCMeta):
    """Attaches volumes of one protocol to this host and detaches them.

    One object serves many threads and volumes for as long as the process lives: it remembers
    nothing of any volume. Unknown keyword arguments are accepted. The dictionaries handed in are
    never changed.

    :param root_helper: command by which a supplied ``execute`` becomes root.
    :param driver: object that knows the host's block devices; remembered as :attr:`driver`.
    :param execute: runs all programs in place of the library's own function.
    :param device_scan_attempts: how patiently a LUN is scanned for.
    """

    platform = initiator.PLATFORM_ALL
    os_type = initiator.OS_TYPE_ALL

    def __init__(
        self,
        root_helper: str | None,
        driver: Any = None,
        execute: executor.ExecuteFunction | None = None,
        device_scan_attempts: int = initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(root_helper, execute, *args, **kwargs)
        self.device_scan_attempts = device_scan_attempts
        self.set_driver(driver)

    def set_driver(self, driver: Any) -> None:
        """Remember the object that knows the host's block devices."""
        self.driver = driver

    @staticmethod
    @abc.abstractmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return what storage has to know of this host for this protocol: plain data, ready for
        JSON."""

    @abc.abstractmethod
    def check_valid_device(self, path: str, run_as_root: bool = True) -> bool:
        """Tell whether a device can be read."""

    @abc.abstractmethod
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Attach a volume and return ``{"path": …}`` and, for block devices, ``"type": "block"``
        and more.

        Connecting what is connected gives the same device. When it fails, the host is as it was
        before.
        """

    @abc.abstractmethod
    def disconnect_volume(
        self,
        connection_properties: dict[str, Any],
        device_info: Any,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Detach a volume; what is not here is detached.

        :param device_info: what :meth:`connect_volume` returned, or None, ``{}``, or anything else.
        :param force: lose data rather than leave anything on the host: all steps are attempted, and
            what failed is raised at the end as one :class:`~os_brick.exception.ExceptionChainer`.
            Without it the first failure is raised, with all that comes after it in place.
        :param ignore_errors: with ``force``: raise nothing.
        """

    @abc.abstractmethod
    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return the paths by which a volume is here; changes nothing."""

    @abc.abstractmethod
    def get_search_path(self) -> str | None:
        """Return the directory in which volumes of this protocol appear, or None."""

    @abc.abstractmethod
    def extend_volume(self, connection_properties: dict[str, Any]) -> int | None:
        """Take notice of a volume's new size and return it in bytes; None if it is unknown."""

    @abc.abstractmethod
    def get_all_available_volumes(
        self, connection_properties: dict[str, Any] | None = None
    ) -> list[str]:
        """Return every entry of the search path; an empty list if there is none."""

    def check_IO_handle_valid(self, handle: Any, data_type: type, protocol: str) -> None:
        """Check the type of a handle that a service passes back.

        :raises InvalidIOHandleObject: it is there and of another type.
        """
        if handle and not isinstance(handle, data_type):
            raise exception.InvalidIOHandleObject(protocol=protocol, actual_type=type(handle))
