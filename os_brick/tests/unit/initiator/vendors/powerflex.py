# SPDX-License-Identifier: Apache-2.0
"""A PowerFlex gateway, as far as a host speaks to one (PowerFlex REST API guide)."""

from __future__ import annotations

import base64
import itertools
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from os_brick.tests.unit.initiator.vendors.servers import Answering, Asked, Said

USER, PASSWORD = "admin", "Pa$$word'1"
_ACTION = re.compile(r"/api/instances/Volume::(\w+)/action/(\w+)")


@dataclass
class Mapped:
    """A volume of the system."""

    id: str
    name: str
    kib: int = 8 * 1024 * 1024
    guids: list[str] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)


def _nothing(volume: Mapped) -> None:
    """What the host notices of a change by default."""


class Gateway(Answering):
    """Maps volumes to whoever is logged in.

    :param newer: whether it uses the error codes of version 4.
    """

    def __init__(self, *, newer: bool = False) -> None:
        super().__init__(tls=True)
        self.volumes: list[Mapped] = []
        self.user, self.password = USER, PASSWORD
        self.token = ""
        self.newer = newer
        self.when_mapped: Callable[[Mapped], None] = _nothing
        self.when_unmapped: Callable[[Mapped], None] = _nothing
        #: Answers to give in place of the usual ones, by the end of the path.
        self.instead: dict[str, Said] = {}
        #: Actions that are carried out, but the answer gets lost.
        self.drops: set[str] = set()
        self._tokens = (f"t0ken-{number}" for number in itertools.count(1))

    def expire(self) -> None:
        """Let the token be too old."""
        self.token = ""

    @property
    def said(self) -> list[str]:
        """What was asked, as the last part of each path."""
        return [asked.path.rpartition("/")[2] for asked in self.asked]

    def answer(self, asked: Asked) -> Said:
        user, _, secret = (
            base64.b64decode(asked.headers["Authorization"].removeprefix("Basic "))
            .decode()
            .partition(":")
        )
        for end, said in self.instead.items():
            if asked.path.endswith(end):
                return said
        if asked.path == "/api/login":
            if (user, secret) != (self.user, self.password):
                return _error("Unauthorized", 401)
            self.token = next(self._tokens)
            return Said.json(self.token)
        if user != self.user or not self.token or secret != self.token:
            return _error("Unauthorized", 401)
        if "/getByName::" in asked.path:
            name = urllib.parse.unquote(urllib.parse.unquote(asked.path.partition("::")[2]))
            return Said.json(next((one.id for one in self.volumes if one.name == name), None))
        return self._instance(asked)

    def _instance(self, asked: Asked) -> Said:
        acting = _ACTION.fullmatch(asked.path)
        number = acting[1] if acting else asked.path.partition("::")[2]
        volume = next((one for one in self.volumes if one.id == number), None)
        if volume is None:
            return _error("Could not find the volume", 500, 79)
        if not acting:
            return Said.json({"id": volume.id, "name": volume.name, "sizeInKb": volume.kib})
        said = self._act(volume, acting[2], asked.data)
        return Said(drop=True) if acting[2] in self.drops else said

    def _act(self, volume: Mapped, action: str, data: dict[str, Any]) -> Said:
        guid = data["guid"]
        if action == "addMappedSdc":
            if guid in volume.guids:
                code = 4037 if self.newer else 81
                return _error("The volume is already mapped to this SDC", 500, code)
            if volume.guids and data.get("allowMultipleMappings") != "TRUE":
                return _error("The volume is mapped to another SDC", 500, 80)
            volume.guids.append(guid)
            self.when_mapped(volume)
        elif action == "removeMappedSdc":
            if guid not in volume.guids:
                return _error("The volume is not mapped to SDC", 500, 4039 if self.newer else 84)
            volume.guids.remove(guid)
            self.when_unmapped(volume)
        elif action == "setMappedSdcLimits":
            volume.limits = data
        else:
            return _error("Unknown action", 404)
        return Said.json({})


def _error(message: str, status: int, code: int = 0) -> Said:
    return Said.json({"message": message, "httpStatusCode": status, "errorCode": code}, status)
