# SPDX-License-Identifier: Apache-2.0
"""Helpers that services and connectors share."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import six

from os_brick import masking

if TYPE_CHECKING:
    from os_brick.executor import Executor
    from os_brick.exit_codes import retry_if_exit_code as retry_if_exit_code

LOG = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


# --- retries --------------------------------------------------------------------------------------

# The seam through which the pauses of retry() go: replace it to record them.
_time_sleep = time.sleep  # noqa: TID251 - pauses of a public decorator, outside of any call


def _sleep(seconds: float) -> None:
    _time_sleep(seconds)


class retry_if_exception_type:
    """Retry on exceptions of the given class, or of one of a tuple of classes."""

    def __init__(self, exception_types: type[BaseException] | tuple[type[BaseException], ...]):
        self._types = exception_types

    def predicate(self, exc: BaseException) -> bool:
        """Whether to try again after this exception."""
        return isinstance(exc, self._types)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "retry_if_exit_code":
            from os_brick import exit_codes

            return globals().setdefault(name, exit_codes.retry_if_exit_code)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _RetryLog:
    """What the retrying package says, for debugging: the last failure reaches the caller anyway."""

    def warning(self, attempt: object) -> None:
        LOG.debug("%s", attempt)

    def info(self, message: str) -> None:
        """Left out: it tells of pauses that are made elsewhere."""


def retry(
    retry_param: Any,
    interval: float = 1,
    retries: int = 3,
    backoff_rate: float = 2,
    retry: Callable[[Any], Any] = retry_if_exception_type,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: call the function again when it fails in a given way.

    The pause before try n + 1 is ``interval * backoff_rate ** (n - 1)`` seconds. After the last try
    its exception is raised, unchanged; other exceptions pass at once.

    :param retry_param: what ``retry`` takes: exception classes, or exit codes.
    :param retries: number of tries in all.
    :param retry: :class:`retry_if_exception_type` or :class:`retry_if_exit_code`.
    :raises ValueError: ``retries`` is less than 1.
    """
    if retries < 1:
        raise ValueError(f"Retries must be greater than or equal to 1 (received: {retries}).")
    condition = retry(retry_param)

    def pause(failed: int, _elapsed_ms: int) -> int:
        # retrying would sleep by itself for what this returns, out of reach of the seam.
        _sleep(interval * backoff_rate ** (failed - 1))
        return 0

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            import retrying

            policy = retrying.Retrying(
                stop_max_attempt_number=retries,
                retry_on_exception=getattr(condition, "predicate", condition),
                wait_func=pause,
                logger=_RetryLog(),
            )
            result: R = policy.call(function, *args, **kwargs)
            return result

        return wrapper

    return decorate


# --- logging --------------------------------------------------------------------------------------


def trace(f: Callable[P, R]) -> Callable[P, R]:
    """Decorator: log the start and the end of a call at DEBUG, with its arguments and result.

    The lines go to the logger of the first argument's module. Secrets are masked as values; the
    function gets them as they are. With DEBUG off nothing is computed. It must be the outermost
    decorator.
    """
    name = f.__name__

    @functools.wraps(f)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        first: object = args[0] if args else kwargs.get("self")
        logger = LOG
        module = getattr(first, "__module__", None)
        if isinstance(module, str):
            logger = logging.getLogger(module)
        if not logger.isEnabledFor(logging.DEBUG):
            return f(*args, **kwargs)
        everything = _named_arguments(f, args, kwargs)
        logger.debug(
            "==> %(func)s: call %(all_args)r",
            {"func": name, "all_args": masking.masked(everything)},
        )
        began = time.monotonic()
        try:
            result = f(*args, **kwargs)
        except Exception as exc:
            text = masking.mask_text(repr(exc), masking.secrets_in(everything))
            logger.debug(
                "<== %(func)s: exception (%(time)dms) %(exc)s",
                {"func": name, "time": (time.monotonic() - began) * 1000, "exc": text},
            )
            raise
        logger.debug(
            "<== %(func)s: return (%(time)dms) %(result)r",
            {
                "func": name,
                "time": (time.monotonic() - began) * 1000,
                "result": masking.masked(result),
            },
        )
        return result

    return wrapper


def _named_arguments(
    f: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> dict[str, object]:
    """Arguments by name. Of a call that does not fit the function: as they come."""
    import inspect

    try:
        return dict(inspect.signature(f).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        return {"args": args, **kwargs}


# --- small ones -----------------------------------------------------------------------------------


def platform_matches(current_platform: str, connector_platform: str) -> bool:
    """Whether a connector for ``connector_platform`` (or ``ALL``) works on this platform."""
    wanted = connector_platform.upper()
    return wanted in ("ALL", current_platform.upper())


def os_matches(current_os: str, connector_os: str) -> bool:
    """Whether a connector for ``connector_os`` (or ``ALL``) works here: LINUX does on linux2."""
    wanted = connector_os.upper()
    return wanted == "ALL" or wanted in current_os.upper()


def merge_dict(dict1: dict[Any, Any], dict2: dict[Any, Any]) -> dict[Any, Any]:
    """A new dictionary of both; the second's values win.

    :raises Exception: one of them is not exactly a dict.
    """
    if type(dict1) is not dict or type(dict2) is not dict:
        raise Exception("Cannot merge: both must be dictionaries")
    return {**dict1, **dict2}


def convert_str(text: Any) -> Any:
    """Text of UTF-8 bytes; text stays as it is."""
    return six.ensure_text(text) if isinstance(text, bytes) else text


class Anything:
    """Equal to everything, greater and smaller than nothing."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __lt__(self, other: object) -> bool:
        return False

    __gt__ = __le__ = __ge__ = __lt__

    # Two equal objects would have to have equal hashes, which nothing can promise for everything.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<Anything>"


ANY = Anything()


def get_passphrase_from_secret(key: Any) -> str:
    """The passphrase in a secret of the key manager (castellan).

    :param key: a managed object. Of type ``passphrase``: its text. Of any other: its bytes as hex.
    """
    encoded: bytes = key.get_encoded()
    if key.managed_type() == "passphrase":
        return encoded.decode("utf-8")
    return encoded.hex()


# --- devices --------------------------------------------------------------------------------------


# Given with each look at a device: functions that services supply have no limit of their own.
_LOOK_LIMIT_S = 600


def get_device_size(executor: Executor, device: str) -> int | None:
    """Size of a block device in bytes, None if the answer is no number.

    :param executor: runs ``blockdev`` as root.
    :raises oslo_concurrency.processutils.ProcessExecutionError: the program failed.
    """
    out, _err = executor._execute(
        *("blockdev", "--getsize64", device),
        run_as_root=True,
        root_helper=executor._root_helper,
        timeout=_LOOK_LIMIT_S,
    )
    size = str(out).strip()
    return int(size) if size.isdigit() else None


def check_valid_device(executor: Executor, path: str) -> bool:
    """Whether a block can be read from a device, as root."""
    import subprocess  # noqa: TID251 - for the class of an error that foreign functions raise

    from oslo_concurrency import processutils

    try:
        _out, err = executor._execute(
            *("dd", f"if={path}", "of=/dev/null", "count=1"),
            run_as_root=True,
            root_helper=executor._root_helper,
            timeout=_LOOK_LIMIT_S,
        )
    except processutils.ProcessExecutionError as exc:
        LOG.error("Failed to access the device on the path %s: %s", path, exc.stderr)
        return False
    except (OSError, subprocess.TimeoutExpired) as exc:  # only foreign execute functions
        LOG.error("Failed to access the device on the path %s: %s", path, exc)
        return False
    # Without a word from dd there was no read: it reports what it copied.
    return err is not None


# --- identity of the host for NVMe ----------------------------------------------------------------

HOST_NQN_FILE = "/etc/nvme/hostnqn"
HOST_ID_FILE = "/etc/nvme/hostid"


def get_host_nqn(system_uuid: str | None = None) -> str | None:
    """The host's NVMe name, made and stored when there is none yet.

    :param system_uuid: UUID of the machine, to make the name from.
    :returns: text such as ``nqn.2014-08.org.nvmexpress:uuid:…``, empty if none could be made; None
        if it is there but cannot be read.
    """
    from os_brick.privileged import nvmeof

    return _read_or_create(HOST_NQN_FILE, lambda: nvmeof.create_hostnqn(system_uuid))


def get_nvme_host_id(uuid: str | None) -> str | None:
    """The host's NVMe id, made and stored when there is none yet.

    :param uuid: what to use as the id; a random one if empty.
    :returns: a UUID as text, or None.
    """
    from uuid import uuid4

    from os_brick.privileged import nvmeof

    return _read_or_create(HOST_ID_FILE, lambda: nvmeof.create_hostid(uuid or str(uuid4())))


def _read_or_create(path: str, create: Callable[[], str | None]) -> str | None:
    try:
        try:
            with open(path) as file:
                text = file.read().strip()
        except OSError:
            text = ""
        # An empty file is what an interrupted write of others left.
        return text or create()
    except Exception:
        # A host that has trouble with NVMe must get its other properties.
        LOG.warning("Could not read or make %s", path, exc_info=True)
        return None


# --- links for encrypted volumes ------------------------------------------------------------------

# The encryptor replaces the path that a connector returns by a link to the decrypted mapping. So it
# has to be a link that belongs to this library: neither a device node nor one of udev's links.
CUSTOM_LINK_PREFIX = "/dev/disk/by-id/os-brick"

# "/" becomes "+". What has a meaning itself is written as in URLs: ordinary names stay plain.
_ESCAPED = {"%": "%25", "+": "%2B"}
_UNESCAPED = {written: plain for plain, written in _ESCAPED.items()}


def _symlink_name_from_device_path(device_path: str) -> str:
    """``/dev/dm-3`` → ``/dev/disk/by-id/os-brick+dev+dm-3``."""
    name = re.sub(r"[%+]", lambda match: _ESCAPED[match[0]], device_path)
    return CUSTOM_LINK_PREFIX + name.replace("/", "+")


def _device_path_from_symlink(symlink: Any) -> Any:
    """The device path that a link's name was made from; anything else is returned unchanged."""
    if not isinstance(symlink, str) or not symlink.startswith(CUSTOM_LINK_PREFIX):
        return symlink
    path = symlink.removeprefix(CUSTOM_LINK_PREFIX).replace("+", "/")
    return re.sub(r"%2B|%25", lambda match: _UNESCAPED[match[0]], path)


def get_dev_path(connection_properties: Mapping[str, Any], device_info: Any) -> Any:
    """The path that the caller used.

    :returns: ``device_info["path"]``, else ``connection_properties["device_path"]``, else ``""``;
        bytes as text. A file handle stays one.
    """
    path = device_info.get("path") if isinstance(device_info, Mapping) else None
    return convert_str(path or connection_properties.get("device_path") or "")


def connect_volume_prepare_result(func: F) -> F:
    """Decorator of ``connect_volume``: the path of an encrypted volume becomes a link of ours.

    It stands outside of any lock, because it disconnects the volume when the link cannot be made.

    The link is made by the connector's ``_link_root(target, link)`` if its class has one, as an
    :class:`~os_brick.executor.Executor` does (which runs ``ln`` where the caller supplied its own
    execute function), else by ``os_brick.privileged.rootwrap.link_root``.
    """

    @functools.wraps(func)
    def wrapper(self: Any, connection_properties: Mapping[str, Any], *args: Any, **kw: Any) -> Any:
        device_info = func(self, connection_properties, *args, **kw)
        path = convert_str(device_info.get("path")) if device_info else None
        if not connection_properties.get("encrypted") or not isinstance(path, str) or not path:
            return device_info
        link = _symlink_name_from_device_path(path)
        known = _has_link(self, link)
        try:
            _link(self, os.path.realpath(path), link)
        except Exception:
            LOG.error("Could not link %s to the device of the encrypted volume", link)
            if known:
                # Connected before, and perhaps in use: it is not ours to take away.
                LOG.warning("The volume stays connected: %s was there before", link)
            else:
                _disconnect_quietly(self, connection_properties, device_info)
            raise
        return {**device_info, "path": link}

    return wrapper  # type: ignore[return-value]


def _disconnect_quietly(
    connector: Any, connection_properties: Mapping[str, Any], device_info: Mapping[str, Any]
) -> None:
    """Undo a connect; the failure that made it necessary is the one to be raised."""
    try:
        connector.disconnect_volume(
            connection_properties, device_info, force=True, ignore_errors=True
        )
    except Exception:
        LOG.warning("Leftovers may remain: cleaning up a failed connect failed", exc_info=True)


@overload
def connect_volume_undo_prepare_result(f: F, unlink_after: bool = False) -> F: ...


@overload
def connect_volume_undo_prepare_result(
    f: None = None, unlink_after: bool = False
) -> Callable[[F], F]: ...


def connect_volume_undo_prepare_result(
    f: Callable[..., Any] | None = None, unlink_after: bool = False
) -> Any:
    """Decorator of ``disconnect_volume`` and ``extend_volume``: they get the original path back.

    Where the volume is encrypted and its path is a link of ours, the function is called with copies
    of the dictionaries that hold the device's path. It is the innermost decorator, used bare or
    with arguments, on functions with and without ``device_info``.

    :param unlink_after: remove the link after success; a failure of that is a warning. Done by the
        connector's ``_unlink_root(link)`` or ``os_brick.privileged.rootwrap.unlink_root``, see
        :func:`connect_volume_prepare_result`. A link that is another volume's by now, since the
        device's name went to it, stays.
    """

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def wrapper(self: Any, connection_properties: Any, *args: Any, **kwargs: Any) -> Any:
            # Bound here, not by inspect: it costs more than the rest of the decorator.
            in_place = bool(args)
            device_info = args[0] if in_place else kwargs.get("device_info")
            link = None
            if connection_properties.get("encrypted"):
                link = get_dev_path(connection_properties, device_info)
            if not isinstance(link, str) or not link.startswith(CUSTOM_LINK_PREFIX):
                return func(self, connection_properties, *args, **kwargs)
            path = _device_path_from_symlink(link)
            connection_properties = {**connection_properties, "device_path": path}
            if isinstance(device_info, Mapping) and device_info:
                device_info = {**device_info, "path": path}
                if in_place:
                    args = (device_info, *args[1:])
                else:
                    kwargs["device_info"] = device_info
            before = _instances_at(self, path, link) if unlink_after else (None, None)
            result = func(self, connection_properties, *args, **kwargs)
            if unlink_after:
                _unlink_quietly(self, link, path, before, connection_properties)
            return result

        return wrapper

    return decorate(f) if f else decorate


def _link(connector: object, target: str, link: str) -> None:
    # Looked up on the class: what stands in for a connector in tests may answer to any name.
    if hasattr(type(connector), "_link_root"):
        connector._link_root(target, link)  # type: ignore[attr-defined]
    else:
        from os_brick.privileged import rootwrap

        rootwrap.link_root(target, link, force=True)


def _has_link(connector: object, link: str) -> bool:
    if hasattr(type(connector), "_has_link"):
        return bool(connector._has_link(link))  # type: ignore[attr-defined]
    return os.path.islink(link)


def _instances_at(connector: object, path: str, link: str) -> tuple[object, object]:
    """Return what tells the device at a path, and the link, from later ones there; None if there
    is none or nobody can say."""
    if hasattr(type(connector), "_device_instance"):
        with contextlib.suppress(OSError):
            made = connector._link_instance(link)  # type: ignore[attr-defined]
            return connector._device_instance(path), made  # type: ignore[attr-defined]
    return None, None


def _unlink_quietly(
    connector: object,
    link: str,
    path: str,
    before: tuple[object, object],
    properties: Mapping[str, Any],
) -> None:
    """Remove the link of a volume that was detached.

    :param before: what was at the volume's path before.
    """
    try:
        if hasattr(type(connector), "_is_link_of_another") and connector._is_link_of_another(  # type: ignore[attr-defined]
            link, path, before, properties
        ):
            LOG.info("%s stays: it is another volume's by now", link)
            return
        if hasattr(type(connector), "_unlink_root"):
            connector._unlink_root(link)  # type: ignore[attr-defined]
        else:
            from os_brick.privileged import rootwrap

            rootwrap.unlink_root(link)
    except Exception:
        # The volume is gone; a dangling link does no harm.
        LOG.warning("Failed to remove encrypted custom symlink %s", link, exc_info=True)
