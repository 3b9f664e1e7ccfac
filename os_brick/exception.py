# SPDX-License-Identifier: Apache-2.0
"""Every error of the library.

An error crosses from the privileged daemon to the service as the name of its class and its
positional arguments. So each class here can be rebuilt, with its whole text, from ``args``.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from os_brick.i18n import _

if TYPE_CHECKING:
    from os_brick._timeout import ExecutionTimeout as ExecutionTimeout

LOG = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    # ExecutionTimeout derives from oslo.concurrency's class, and that module compiles some 400
    # regular expressions when it is loaded: most of the time that importing this library would
    # take.
    if name == "ExecutionTimeout":
        from os_brick._timeout import ExecutionTimeout

        return ExecutionTimeout
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class BrickException(Exception):
    """Base of the errors. A subclass states a %-template as ``message`` and is raised with the
    template's keywords.

    ``BrickException("text")`` takes a ready text instead of the template. The keyword ``reason`` is
    appended to a template that does not name it: what was seen, and what to try next. No secret
    belongs in any of them.

    :ivar msg: the text.
    :ivar kwargs: the keywords, with ``code`` added.
    :ivar timeline: what the failed public call did and how long each step took, where known, else
        None.
    """

    message: ClassVar[str] = _("An unknown exception occurred.")
    code: ClassVar[int] = 500
    headers: dict[str, str] = {}  # noqa: RUF012 - each instance gets its own
    safe: ClassVar[bool] = False
    timeline: Any = None

    def __init__(self, message: object = None, **kwargs: Any) -> None:
        self.kwargs = kwargs
        kwargs.setdefault("code", self.code)
        self.headers = dict(type(self).headers)
        self.msg = self._format() if not message else str(message)
        super().__init__(self.msg)

    def _format(self) -> str:
        template = self.message
        try:
            text = template % self.kwargs
        except Exception:
            # A wrong keyword must not hide the failure that is being reported. The names are enough
            # to find the mistake; the values are not logged, they were not meant for this text.
            LOG.exception(
                "Exception in string format operation: %r does not fit keywords %s",
                template,
                sorted(self.kwargs),
            )
            text = template
        reason = self.kwargs.get("reason")
        if reason and "%(reason)" not in template:
            text = f"{text} {reason}"
        return text

    def __str__(self) -> str:
        return self.msg


class NotFound(BrickException):
    message = _("Resource could not be found.")
    code = 404
    safe = True


class Invalid(BrickException):
    message = _("Unacceptable parameters.")
    code = 400


class InvalidParameterValue(Invalid):
    message = _("%(err)s")


class NoFibreChannelHostsFound(BrickException):
    message = _("We are unable to locate any Fibre Channel devices.")


class NoFibreChannelVolumeDeviceFound(BrickException):
    message = _("Unable to find a Fibre Channel volume device.")


class VolumeNotDeactivated(BrickException):
    message = _("Volume %(name)s was not deactivated in time.")


class VolumeDeviceNotFound(BrickException):
    message = _("Volume device not found at %(device)s.")


class VolumePathsNotFound(BrickException):
    message = _("Could not find any paths for the volume.")


class VolumePathNotRemoved(BrickException):
    message = _("Volume path %(volume_path)s was not removed in time.")


class ProtocolNotSupported(BrickException):
    message = _("Connect to volume via protocol %(protocol)s not supported.")


class TargetPortalNotFound(BrickException):
    message = _("Unable to find target portal %(target_portal)s.")


class TargetPortalsNotFound(TargetPortalNotFound):
    message = _("Unable to find target portal in %(target_portals)s.")


class FailedISCSITargetPortalLogin(BrickException):
    message = _("Unable to login to iSCSI Target Portal")


class BlockDeviceReadOnly(BrickException):
    message = _("Block device %(device)s is Read-Only.")


class VolumeGroupNotFound(BrickException):
    message = _("Unable to find Volume Group: %(vg_name)s")


class VolumeGroupCreationFailed(BrickException):
    message = _("Failed to create Volume Group: %(vg_name)s")


class CommandExecutionFailed(BrickException):
    message = _("Failed to execute command %(cmd)s")


class VolumeDriverException(BrickException):
    message = _("An error occurred while IO to volume %(name)s.")


class InvalidIOHandleObject(BrickException):
    message = _("IO handle of %(protocol)s has wrong object type %(actual_type)s.")


class VolumeEncryptionNotSupported(Invalid):
    message = _("Volume encryption is not supported for %(volume_type)s volume %(volume_id)s.")


class VolumeLocalCacheNotSupported(Invalid):
    message = _("Volume local cache is not supported for %(volume_type)s volume %(volume_id)s.")


class InvalidConnectorProtocol(ValueError):
    """No connector for this protocol on this platform. Services catch it as a ValueError."""


class HostChannelsTargetsNotFound(BrickException):
    """:ivar found: what was found for some of the IQNs, as the caller gave it."""

    message = _("Unable to find host, channel, and target for %(iqns)s.")

    def __init__(self, message: object = None, iqns: object = None, found: object = None) -> None:
        super().__init__(message, iqns=iqns)
        self.found = found


class MultipathdPathsNotRemoved(BrickException):
    message = _(
        "The following devices %(devices)s are still not removed from multipathd monitoring"
    )


class DeviceInUse(BrickException):
    """A detach without force found the volume in use; nothing was changed."""

    message = _(
        "%(device)s is in use: %(users)s. Nothing was removed; end the use and detach again."
    )


class FormatRefused(BrickException):
    """A volume that could not be opened was not formatted: it is not known to be empty."""

    message = _("%(device)s was not formatted: %(reason)s")


class DeadlineExceeded(BrickException):
    """A public call did not end in time, see option ``call_timeout``."""

    message = _("No end within %(seconds)s seconds: %(what)s.")


class WrongVolume(VolumeDeviceNotFound):
    """What was found at the volume's address is not one volume, or not the one asked for."""

    message = _("Volume device not found at %(device)s.")


class ExceptionChainer(BrickException):
    """Collects the errors of several steps, to be raised as one.

    ::

        errors = ExceptionChainer()
        with errors.context(force, "Flushing %s failed", device):
            flush(device)
        if errors:
            raise errors

    False while it holds nothing. Its text names each error as ``Chained Exception #<n>`` with its
    traceback; its ``__cause__`` is the first one. ``context()`` may be used nested and by several
    threads at once.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # One tuple of texts is what ``args`` of another chainer holds: that one is being rebuilt.
        texts = args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else ()
        super().__init__(*(() if texts else args), **kwargs)
        self._texts: tuple[str, ...] = tuple(map(str, texts))
        self._chained: list[tuple[Any, Any, Any]] = []

    @property
    def args(self) -> tuple[Any, ...]:
        """What rebuilds this chainer in another process: the texts of all errors."""
        texts = self._all_texts()
        return (texts,) if texts else (self.msg,)

    @args.setter
    def args(self, value: tuple[Any, ...]) -> None:
        """Ignored: BaseException wants to be able to set it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args

    def _all_texts(self) -> tuple[str, ...]:
        return self._texts + tuple(_text_of(*item) for item in tuple(self._chained))

    def __str__(self) -> str:
        texts = self._all_texts()
        if not texts:
            return self.msg
        return "\n".join(f"Chained Exception #{n}\n{text}" for n, text in enumerate(texts, start=1))

    def __repr__(self) -> str:
        return str(self)

    def __bool__(self) -> bool:
        return bool(self._texts or self._chained)

    def add_exception(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        """Store an error, as ``sys.exc_info()`` gives it.

        Anything is accepted as value and traceback.
        """
        if exc_val is self:  # Raised inside one of its own contexts.
            return
        self._chained.append((exc_type, exc_val, exc_tb))
        if self.__cause__ is None and isinstance(exc_val, BaseException):
            self.__cause__ = exc_val

    def holds(self, exc_val: BaseException | None) -> bool:
        """Whether this very exception object has been stored."""
        return any(value is exc_val for _type, value, _tb in self._chained)

    def context(self, catch_exception: bool, msg: str = "", *msg_args: Any) -> _ChainContext:
        """A context manager that stores an exception raised inside.

        :param catch_exception: whether the exception ends here. Otherwise it goes on to the caller.
            Requests to stop (KeyboardInterrupt, SystemExit, GeneratorExit) are stored and always go
            on.
        :param msg: logged at WARNING with ``msg_args`` if there was an exception.
        """
        return _ChainContext(self, catch_exception, msg, msg_args)

    def __enter__(self) -> ExceptionChainer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """The chainer itself as context manager stores the exception and lets it go on."""
        if exc_type is not None and not self.holds(exc_val):
            self.add_exception(exc_type, exc_val, exc_tb)


class _ChainContext:
    """The settings of one ``with`` block, on an object of its own: blocks do not disturb others."""

    def __init__(
        self, chainer: ExceptionChainer, catch: bool, msg: str, msg_args: tuple[Any, ...]
    ) -> None:
        self._chainer = chainer
        self._catch = catch
        self._msg = msg
        self._msg_args = msg_args

    def __enter__(self) -> ExceptionChainer:
        return self._chainer

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool:
        if exc_type is None:
            return False
        if not self._chainer.holds(exc_val):  # A nested block may have stored it already.
            self._chainer.add_exception(exc_type, exc_val, exc_tb)
        if self._msg:
            LOG.warning(self._msg, *self._msg_args)
        return bool(self._catch) and issubclass(exc_type, Exception)


def _text_of(exc_type: Any, exc_val: Any, exc_tb: Any) -> str:
    """Traceback and message of one stored error; of what is no traceback, its text."""
    if isinstance(exc_val, BaseException) and (exc_tb is None or isinstance(exc_tb, TracebackType)):
        return "".join(traceback.format_exception(type(exc_val), exc_val, exc_tb)).rstrip()
    name = getattr(exc_type, "__name__", exc_type)
    return f"{name}: {exc_val}" if exc_tb is None else f"{name}: {exc_val}\n{exc_tb}"
