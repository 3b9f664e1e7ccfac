# SPDX-License-Identifier: Apache-2.0
"""A StorPool API server, as far as a host speaks to one (StorPool API reference)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from os_brick.tests.unit.initiator.vendors.servers import Answering, Asked, Said

TOKEN = "1234567890123456789"


@dataclass
class Stored:
    """A volume of the cluster."""

    name: str
    global_id: str
    size: int = 8 * 1024**3
    #: Client number → mode.
    attached: dict[int, str] = field(default_factory=dict)


def _nothing(volume: Stored) -> None:
    """What the host notices of a change by default."""


class Cluster(Answering):
    """Attaches volumes to clients."""

    def __init__(self) -> None:
        super().__init__()
        self.volumes: list[Stored] = []
        self.when_attached: Callable[[Stored], None] = _nothing
        self.when_detached: Callable[[Stored], None] = _nothing
        #: Answers to give before the usual ones, in order.
        self.first: list[Said] = []
        #: How often a detach without force finds the volume open, and how that is said.
        self.busy = 0
        self.busy_error = {"name": "busy", "descr": "the volume is open"}
        #: Carried out, but the answer gets lost, so often.
        self.drops = 0

    @property
    def said(self) -> list[str]:
        """What was asked, method and query."""
        return [f"{asked.method} {asked.path.removeprefix('/ctrl/1.0/')}" for asked in self.asked]

    def add(self, name: str, global_id: str) -> Stored:
        self.volumes.append(Stored(name, global_id))
        return self.volumes[-1]

    def answer(self, asked: Asked) -> Said:
        if asked.headers.get("Authorization") != f"Storpool v1:{TOKEN}":
            return error(401, "unauthorized", "wrong token")
        if self.first:
            return self.first.pop(0)
        _ctrl, _version, *words = asked.path.strip("/").split("/")
        if words[0] == "MultiCluster":
            words.pop(0)
        return self._act(asked, *words)

    def _act(self, asked: Asked, verb: str, name: str = "") -> Said:
        if verb == "VolumesReassignWait":
            return self._reassign(asked.data["reassign"])
        if verb in ("VolumeGetInfo", "Volume"):
            volume = self._find(name)
            if volume is None:
                return error(404, "objectDoesNotExist", f"no volume {name}")
            if verb == "Volume":
                return data([{"name": volume.name, "size": volume.size}])
            return data({"globalId": volume.global_id, "name": volume.name})
        return data({"verb": verb, "name": name, "got": asked.body.decode()})

    def _find(self, name: str) -> Stored | None:
        for one in self.volumes:
            if name in (one.name, f"~{one.global_id}"):
                return one
        return None

    def _reassign(self, changes: list[dict[str, Any]]) -> Said:
        for change in changes:
            volume = self._find(change["volume"])
            if volume is None:
                return error(404, "objectDoesNotExist", f"no volume {change['volume']}")
            for mode in ("rw", "ro"):
                for client in change.get(mode, ()):
                    volume.attached[client] = mode
                    self.when_attached(volume)
            for client in change.get("detach", ()):
                if self.busy and not change["force"]:
                    self.busy -= 1
                    return Said.json({"error": self.busy_error}, 500)
                if volume.attached.pop(client, None):
                    self.when_detached(volume)
        if self.drops:
            self.drops -= 1
            return Said(drop=True)
        return data({})


def data(value: Any) -> Said:
    """A good answer."""
    return Said.json({"generation": 7, "data": value})


def error(status: int, name: str, descr: str, *, transient: bool = False) -> Said:
    """An error as StorPool tells it."""
    return Said.json(
        {"error": {"name": name, "descr": descr, "transient": transient}, "generation": 7}, status
    )
