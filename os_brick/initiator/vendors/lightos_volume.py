# SPDX-License-Identifier: Apache-2.0
"""Connection properties of a LightOS volume, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from os_brick import exception
from os_brick.initiator.linux import nvme
from os_brick.initiator.linux.nvme import Portal
from os_brick.initiator.linux.nvme_ids import NamespaceIds, normal_uuid


@dataclass(frozen=True, slots=True)
class LightOSVolume:
    """A volume: a namespace of a cluster's subsystem.

    :ivar uuid: in lower case with hyphens.
    :ivar nodes: the cluster's discovery services; none are needed to find a volume that is here.
    """

    uuid: str
    nqn: str
    nodes: tuple[Portal, ...]

    @property
    def ids(self) -> NamespaceIds:
        """What identifies its namespace."""
        return NamespaceIds(uuid=self.uuid)

    @property
    def lock_names(self) -> list[str]:
        """Names of the locks that calls for the same volume have in common."""
        return [f"lightos-{self.uuid}"]

    def __str__(self) -> str:
        return f"LightOS volume {self.uuid}"

    @classmethod
    def parse(cls, properties: Mapping[str, Any]) -> LightOSVolume:
        """Return the volume that connection properties name.

        :raises InvalidParameterValue: they cannot be used; the text names the key.
        """
        return cls(
            parse_uuid(properties.get("uuid")),
            nvme.parse_nqn(properties.get("subsysnqn"), "subsysnqn"),
            _parse_nodes(properties.get("lightos_nodes")),
        )

    def text(self, host_nqn: str) -> str:
        """Return what the discovery client has to be told.

        :raises BrickException: no node is known.
        """
        if not self.nodes:
            raise exception.InvalidParameterValue(
                err="lightos_nodes: expected the cluster's nodes in the connection properties"
            )
        lines = [f"# os_brick connector dsc file for LightOS volume: {self.uuid}"]
        lines += [
            f"-t {node.transport} -a {node.address} -s {node.port} -q {host_nqn} -n {self.nqn}"
            for node in self.nodes
        ]
        return "\n".join(lines) + "\n"


def parse_uuid(value: object) -> str:
    """Return a volume's UUID in lower case with hyphens.

    :raises InvalidParameterValue: it is none.
    """
    try:
        found = normal_uuid(value) if isinstance(value, str) else ""
    except ValueError:
        found = ""
    if not found:
        raise exception.InvalidParameterValue(err=f"uuid: expected a UUID, got {value!r}")
    return found


def _parse_nodes(value: object) -> tuple[Portal, ...]:
    """Return the nodes, which drivers give as a dictionary by address or as a list."""
    if value is None:
        return ()
    given = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(given, Sequence) or not all(isinstance(one, Mapping) for one in given):
        raise exception.InvalidParameterValue(
            err=f"lightos_nodes: expected nodes as dictionaries, got {value!r}"
        )
    return tuple(
        Portal.parse(
            one.get("target_portal"),
            one.get("target_port"),
            one.get("transport_type"),
            "lightos_nodes",
        )
        for one in given
    )
