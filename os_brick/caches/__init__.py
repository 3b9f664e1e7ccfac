# SPDX-License-Identifier: Apache-2.0
"""Local caches in front of attached volumes.

Services go through :class:`CacheManager`; an engine is what drives one kind of cache.
"""

from __future__ import annotations

import abc
from typing import Any

from oslo_log import log as logging

from os_brick import exception

LOG = logging.getLogger(__name__)

#: Name of an engine → dotted name of its class.
CACHE_ENGINE_TO_CACHE_CLASS_MAP = {
    "opencas": "os_brick.caches.opencas.OpenCASEngine",
}


class CacheEngineBase(metaclass=abc.ABCMeta):
    """What each engine promises.

    Each call may be given keywords, which go before those of the constructor.

    :param kwargs: what the engine needs, such as ``root_helper`` and ``dev_path``; unknown ones are
        ignored.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()

    @abc.abstractmethod
    def is_engine_ready(self, **kwargs: Any) -> bool:
        """Tell whether volumes can be cached here now."""

    @abc.abstractmethod
    def attach_volume(self, **kwargs: Any) -> str:
        """Put the cache in front of the device at ``dev_path``; return the cached device's path."""

    @abc.abstractmethod
    def detach_volume(self, **kwargs: Any) -> str:
        """Take the cache away from the cached device ``dev_path``; return the path of the device
        behind it."""


class CacheManager:
    """The cache of one attached volume, if it may be cached.

    :param root_helper: command by which a supplied ``execute`` becomes root.
    :param connection_info: the storage side's answer; ``connection_info["data"]`` has the attached
        device's ``device_path``, and ``cacheable`` if the volume may be cached.
    :param kwargs: ``cache_name``, the engine's name, and what that engine needs.
    :raises VolumeLocalCacheNotSupported: the volume has no ``device_path``.
    :raises Invalid: the volume may be cached, but there is no such engine, or it is not ready.
    """

    def __init__(
        self, root_helper: str | None, connection_info: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        data = connection_info["data"]
        path = data.get("device_path")
        if not path:
            raise exception.VolumeLocalCacheNotSupported(
                volume_id=data.get("volume_id") or connection_info.get("serial", ""),
                volume_type=connection_info.get("driver_volume_type"),
            )
        self.ori_device_path: str = path
        self.cacheable = bool(data.get("cacheable"))
        self.engine: CacheEngineBase | None = None
        if self.cacheable:
            self.engine = _make_engine({**kwargs, "root_helper": root_helper, "dev_path": path})

    def attach_volume(self) -> str:
        """Cache the volume; return the path to use, which is its own if it may not be cached."""
        if self.engine is None:
            return self.ori_device_path
        path = self.engine.attach_volume(dev_path=self.ori_device_path)
        LOG.debug("volume cached: %s -> %s", self.ori_device_path, path)
        return path

    def detach_volume(self) -> str:
        """Take the cache away, with the volume's data written back; return the path of the device
        behind it."""
        if self.engine is None:
            return self.ori_device_path
        path = self.engine.detach_volume(dev_path=self.ori_device_path)
        LOG.debug("volume uncached: %s -> %s", self.ori_device_path, path)
        return path


def _make_engine(keywords: dict[str, Any]) -> CacheEngineBase:
    """Return an engine that is ready.

    :raises Invalid: there is none.
    """
    import importlib  # with the first engine: most volumes have none

    name = keywords.get("cache_name")
    path = CACHE_ENGINE_TO_CACHE_CLASS_MAP.get(name or "")
    if path is None:
        raise exception.Invalid(
            f"No valid cache engine: cache_name is {name!r}, expected one of "
            f"{', '.join(sorted(CACHE_ENGINE_TO_CACHE_CLASS_MAP))}"
        )
    module, _dot, class_name = path.rpartition(".")
    engine: CacheEngineBase = getattr(importlib.import_module(module), class_name)(**keywords)
    if not engine.is_engine_ready():
        raise exception.Invalid(f"No valid cache engine: {name} is not ready")
    return engine
