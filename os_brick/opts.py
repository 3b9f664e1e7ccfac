# SPDX-License-Identifier: Apache-2.0
"""Options of the group ``[os_brick]``, and where the library's lock files live."""

import copy
import functools
import logging

from oslo_config import cfg

LOG = logging.getLogger(__name__)

GROUP = "os_brick"

_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "lock_path",
        default=None,  # os_brick.setup() makes it [oslo_concurrency] lock_path.
        help="Directory for the file locks of this library. Services that share a host (compute, "
        "volume, backup, image) must all use the same directory and be able to read and write it. "
        "Defaults to [oslo_concurrency] lock_path of the service.",
    ),
    cfg.IntOpt(
        "wait_mpath_device_attempts",
        default=4,
        min=1,
        help="Number of attempts to wait for a multipath device to become ready for I/O.",
    ),
    cfg.IntOpt(
        "wait_mpath_device_interval",
        default=1,
        min=1,
        help="Seconds between the attempts to wait for a multipath device to become ready.",
    ),
    cfg.IntOpt(
        "call_timeout",
        default=600,
        min=1,
        help="Seconds after which one connect, disconnect or extend call gives up. Every log-in, "
        "wait, flush and removal happens within it.",
    ),
    cfg.IntOpt(
        "flush_timeout",
        default=300,
        min=1,
        help="Seconds that writing out the data of one device may take when a volume is "
        "disconnected. Within call_timeout.",
    ),
]

cfg.CONF.register_opts(_OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Options for sample configuration files (entry point ``oslo.config.opts``).

    :returns: ``[("os_brick", [option, ...])]``; the options are copies.
    """
    return [(GROUP, copy.deepcopy(_OPTS))]


def set_defaults(conf: cfg.ConfigOpts = cfg.CONF) -> None:
    """Make ``[oslo_concurrency] lock_path`` the default of ``[os_brick] lock_path``.

    Calling it again is harmless; a value that the operator configured stays.

    :param conf: the service's configuration, already loaded. The locks look at
        ``oslo_config.cfg.CONF``; where ``conf`` is another object, the resulting path becomes the
        default there too.
    """
    # Imported here: only services that take locks need it, and they have it loaded.
    from oslo_concurrency import lockutils

    conf.register_opts(_OPTS, group=GROUP)
    conf.set_default("lock_path", lockutils.get_lock_path(conf), group=GROUP)
    if conf is not cfg.CONF:
        cfg.CONF.set_default("lock_path", conf[GROUP].lock_path, group=GROUP)


@functools.lru_cache(maxsize=16)  # A warning for each lock taken would drown the log.
def _warn_setup_was_not_called(path: str) -> None:
    LOG.warning(
        "Service needs to call os_brick.setup() before connecting volumes, if it doesn't it will "
        "break on the next release"
    )


def get_lock_path() -> str:
    """Directory of the library's lock files, as configured at the time of the call.

    ``[os_brick] lock_path``, else (with a warning, once per process and path) ``[oslo_concurrency]
    lock_path``.

    :raises oslo_config.cfg.RequiredOptError: neither is set.
    """
    path: str | None = cfg.CONF[GROUP].lock_path
    if path:
        return path
    from oslo_concurrency import lockutils

    path = lockutils.get_lock_path(cfg.CONF)
    if not path:
        raise cfg.RequiredOptError("lock_path", cfg.OptGroup(GROUP))
    _warn_setup_was_not_called(path)
    return path
