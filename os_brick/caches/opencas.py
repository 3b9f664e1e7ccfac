# SPDX-License-Identifier: Apache-2.0
"""Open CAS: a cache on a fast local disk, run by its administrator with ``casadm``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from os_brick import caches, exception, opts
from os_brick.initiator.linux import nodes
from os_brick.initiator.linux.call import Call, public_call
from os_brick.initiator.linux.doors import HasHost

LOG = logging.getLogger(__name__)

_PROGRAM = "casadm"
_RUNNING = "Running"
_ACTIVE = "Active"
# Lines of a cache's devices begin with what draws a tree.
_CORE = "core"
_LIST_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Cache:
    """A line of the list: one cache of this host."""

    number: str
    status: str


@dataclass(frozen=True, slots=True)
class Core:
    """A line of the list: a device behind a cache.

    :ivar cache: number of its cache; ``number`` is one for this cache only.
    :ivar disk: path of the device behind the cache.
    :ivar device: path of the cached device; ``-`` if there is none.
    :ivar status: ``Active`` if the disk that is at its path now is behind the cache. Otherwise the
        cached device is that of a disk which had the path before.
    """

    cache: str
    number: str
    disk: str
    device: str
    status: str = _ACTIVE


def parse_list(text: str) -> list[Cache | Core]:
    """Return the lines of ``casadm -L``, each device after its cache (pure).

    Columns are type, id, disk, status, write policy, device. A status may have several words.
    """
    found: list[Cache | Core] = []
    cache = ""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 5:
            continue
        if words[0] == "cache":
            cache = words[1]
            found.append(Cache(cache, words[3]))
        elif words[0].endswith(_CORE) and words[1] == "pool":
            cache = ""  # what follows waits for its cache
        elif words[0].endswith(_CORE) and cache:
            found.append(Core(cache, words[1], words[2], words[-1], words[3]))
    return found


class OpenCASEngine(HasHost, caches.CacheEngineBase):
    """One cache of Open CAS.

    :param kwargs: ``opencas_cache_id`` (number of a cache that is running), ``root_helper``,
        ``execute`` (runs ``casadm`` in place of the library's own function), ``dev_path``. Others
        are ignored.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(kwargs.get("root_helper"), kwargs.get("execute"), host=kwargs.get("host"))
        self._cache = str(kwargs.get("opencas_cache_id", ""))
        self._path = kwargs.get("dev_path")

    def os_execute(self, *cmd: str, **kwargs: Any) -> tuple[str, str]:
        """Run a program as root; return (stdout, stderr).

        :raises ProcessExecutionError: it failed; logged.
        """
        with self._calling(" ".join(cmd[:2])) as call:
            out, err = self._run(call, *cmd)
            return out, err

    def is_engine_ready(self, **kwargs: Any) -> bool:
        """Tell whether the cache is running.

        :raises ProcessExecutionError: that cannot be found out.
        """
        with self._calling("Look at caches") as call:
            return Cache(self._cache, _RUNNING) in self._list(call)

    def attach_volume(self, **kwargs: Any) -> str:
        """Put a device behind the cache; return the path of the cached device.

        A device that is behind it already gives the same path.

        :param kwargs: ``dev_path``, the device's path.
        :raises VolumePathsNotFound: no ``dev_path`` is given.
        :raises BrickException: Open CAS shows no cached device.
        :raises ProcessExecutionError: Open CAS refuses.
        """
        path = self._given_path(kwargs)
        with self._calling(f"Caching of {path}") as call:
            core = self._real(path)
            try:
                self._run(call, _PROGRAM, "-A", "-i", self._cache, "-d", core)
            except processutils.ProcessExecutionError:
                found = self._find_behind(call, core)
                if found is None:
                    raise
                return found
            found = self._find_behind(call, core)
        if found is None:
            raise exception.BrickException("Cannot find emulated device.")
        return found

    def detach_volume(self, **kwargs: Any) -> str:
        """Take a device from behind its cache, with all data written back; return its path.

        :param kwargs: ``dev_path``, the path of the cached device; ``force`` to give up data that
            is in the cache only.
        :raises VolumePathsNotFound: no ``dev_path`` is given.
        :raises BrickException: there is no such cached device.
        :raises ProcessExecutionError: Open CAS refuses, as when the device is in use or the data
            cannot be written back; the device is still cached then.
        """
        path = self._given_path(kwargs)
        with self._calling(f"End of caching of {path}") as call:
            device = self._real(path)
            core = next((one for one in self._cores(call) if one.device == device), None)
            if core is None:
                raise exception.BrickException("Cannot find core device.")
            # Without -f Open CAS itself writes back what is in the cache only.
            force = ["-f"] if kwargs.get("force") else []
            self._run(call, _PROGRAM, "-R", *force, "-i", core.cache, "-j", core.number)
            return core.disk

    def _given_path(self, kwargs: dict[str, Any]) -> str:
        path = kwargs.get("dev_path") or self._path
        if not path:
            raise exception.VolumePathsNotFound()
        return str(path)

    def _real(self, path: str) -> str:
        return nodes.real_node(self.host, path) or path

    def _find_behind(self, call: Call, disk: str) -> str | None:
        """Return the cached device of a disk that is behind this cache."""
        start = f"/dev/cas{self._cache}-"
        for core in self._cores(call):
            active = core.status == _ACTIVE
            if active and core.device.startswith(start) and self._real(core.disk) == disk:
                return core.device
        return None

    def _cores(self, call: Call) -> Iterable[Core]:
        return [one for one in self._list(call) if isinstance(one, Core)]

    def _list(self, call: Call) -> list[Cache | Core]:
        return parse_list(self._run(call, _PROGRAM, "-L", limit_s=_LIST_LIMIT_S)[0])

    def _run(self, call: Call, *words: str, limit_s: float | None = None) -> tuple[str, str]:
        limit_s = call.remaining_s() if limit_s is None else limit_s
        try:
            result = self.host.programs.run(call, *words, limit_s=limit_s).check()
        except processutils.ProcessExecutionError as exc:
            LOG.error("Command failed: %s: %s", " ".join(words), exc.stderr or exc.description)
            raise
        return result.out, result.err

    @contextlib.contextmanager
    def _calling(self, operation: str) -> Iterator[Call]:
        limit_s = cfg.CONF[opts.GROUP].call_timeout
        with public_call(operation, self.host.clock, limit_s) as call:
            yield call
