# SPDX-License-Identifier: Apache-2.0
"""RBD volumes as values, made of connection properties."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from os_brick import exception, utils
from os_brick.i18n import _

# What goes into paths and onto command lines: neither "/", blanks and "..", nor a first character
# that makes it an option.
_NAME = re.compile(r"(?!\.{1,2}$)[^\s/@\x00\-][^\s/@\x00]*")
#: What a handle cannot do without.
_HANDLE_KEYS = ("name", "hosts", "ports", "cluster_name", "auth_username")


def malformed(reason: str) -> exception.BrickException:
    """Return the error for properties that cannot be used."""
    return exception.BrickException(
        _("Connect volume failed, malformed connection properties: %s") % reason
    )


@dataclass(frozen=True, slots=True)
class RbdImage:
    """What makes an image: its name alone is not enough, another pool may have one of that name.

    :ivar namespace: ``""`` for none.
    :ivar snapshot: ``""`` for the image itself.
    """

    pool: str
    name: str
    namespace: str = ""
    snapshot: str = ""

    @classmethod
    def parse(cls, text: Any) -> RbdImage:
        """Read ``pool/image`` or ``pool/image@snapshot``.

        :raises BrickException: it is neither.
        """
        text = utils.convert_str(text)
        parts = text.split("/") if isinstance(text, str) else []
        if len(parts) == 3:
            raise malformed(f"name {text!r}: images in namespaces of a pool are not supported")
        if len(parts) != 2:
            raise malformed(f"name {text!r} is not 'pool/image'")
        pool, image = parts
        name, at, snapshot = image.partition("@")
        wanted = (pool, name, snapshot) if at else (pool, name)
        if not all(_NAME.fullmatch(part) for part in wanted):
            raise malformed(f"name {text!r} is not 'pool/image'")
        return cls(pool, name, snapshot=snapshot)

    @property
    def spec(self) -> str:
        """Name of the image in its pool, as the program ``rbd`` takes it."""
        return f"{self.name}@{self.snapshot}" if self.snapshot else self.name

    @property
    def link(self) -> str:
        """The link that Ceph's udev rules make to the mapped image."""
        parts = (self.pool, self.namespace, self.spec)
        return "/".join(("/dev/rbd", *filter(None, parts)))

    def __str__(self) -> str:
        return "/".join(filter(None, (self.pool, self.namespace, self.spec)))


@dataclass(frozen=True, slots=True)
class RbdVolume:
    """An image, and how to reach its cluster.

    :ivar monitors: ``host:port`` each, IPv6 addresses in brackets; none: as configured on the host.
    :ivar user: cephx user without ``client.``; ``""`` where there is none.
    :ivar keyring: content of a keyring, from services that have no configuration of Ceph's.
    """

    image: RbdImage
    monitors: tuple[str, ...] = ()
    user: str = ""
    cluster: str = ""
    keyring: str | None = field(default=None, repr=False)
    read_only: bool = False

    @classmethod
    def for_handle(cls, properties: Mapping[str, Any]) -> RbdVolume:
        """Make one from connection properties that have to hold all that librbd needs.

        :raises BrickException: a key is missing or cannot be used; it is named.
        """
        for key in _HANDLE_KEYS:
            if key not in properties:
                raise malformed(f"{key} is missing")
        volume = cls.parse(properties)
        if not volume.monitors:
            raise malformed("hosts is empty")
        if not volume.cluster:
            raise malformed("cluster_name is empty")
        return volume

    @classmethod
    def parse(cls, properties: Mapping[str, Any]) -> RbdVolume:
        """Make one from connection properties; monitors, user and cluster may be missing.

        :raises BrickException: a key cannot be used; it is named.
        """
        if "name" not in properties:
            raise malformed("name is missing")
        image = RbdImage.parse(properties["name"])
        return cls(
            image,
            monitor_addresses(properties.get("hosts") or (), properties.get("ports") or ()),
            _part_of_path(properties, "auth_username"),
            _part_of_path(properties, "cluster_name"),
            utils.convert_str(properties.get("keyring")),
            bool(image.snapshot) or properties.get("access_mode") == "ro",
        )

    @property
    def lock_names(self) -> list[str]:
        """Names of the locks that calls for the same volume have in common."""
        return [f"rbd {self.image}"]

    @property
    def program_args(self) -> list[str]:
        """What every ``rbd`` command is told about the cluster, without a configuration file."""
        args = ["--id", self.user] if self.user else []
        if self.monitors:
            # One option for all: of several, only the last is heeded (bug 2121082).
            args += ["--mon_host", ",".join(self.monitors)]
        return args

    def configuration(self, keyring: str) -> str:
        """Return the text of a configuration file for this cluster.

        It begins with ``[global]`` (bug 1865754), and ends its last line (bug 1684077).
        """
        return configuration(self.monitors, keyring)

    def __str__(self) -> str:
        return f"RBD image {self.image}"


def configuration(monitors: Iterable[str], keyring: str) -> str:
    """Return the text of a configuration file: where the cluster is, and a keyring's content."""
    addresses = ",".join(monitors)
    lines = ["[global]", *([f"mon_host = {addresses}"] if addresses else []), keyring, ""]
    return "\n".join(lines)


def bracketed(hosts: Iterable[Any]) -> list[str]:
    """Return hosts with IPv6 addresses in brackets, ready for ``:port`` (bug 1640914)."""
    texts = [str(utils.convert_str(host)) for host in hosts]
    return [f"[{host}]" if ":" in host and host[:1] != "[" else host for host in texts]


def monitor_addresses(hosts: Any, ports: Any) -> tuple[str, ...]:
    """Return ``host:port`` of each monitor.

    :raises BrickException: the lists are none, or of different length, or hold what cannot be.
    """
    for key, value in (("hosts", hosts), ("ports", ports)):
        if not isinstance(value, (list, tuple)):
            raise malformed(f"{key} is not a list")
    if len(hosts) != len(ports):
        raise malformed(f"{len(hosts)} hosts, but {len(ports)} ports")
    found = tuple(
        f"{host}:{utils.convert_str(port)}"
        for host, port in zip(bracketed(hosts), ports, strict=True)
    )
    if any(re.search(r"[\s,=#;]", address) for address in found):
        raise malformed("hosts and ports hold characters that no address has")
    return found


def _part_of_path(properties: Mapping[str, Any], key: str) -> str:
    """Return a text that may become part of a file name; ``""`` for none."""
    text = utils.convert_str(properties.get(key) or "")
    if not isinstance(text, str) or (text and not _NAME.fullmatch(text)):
        raise malformed(f"{key} is not a name")
    return text
