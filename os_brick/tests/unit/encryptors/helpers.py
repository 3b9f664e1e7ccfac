# SPDX-License-Identifier: Apache-2.0
"""What the tests of the encryptors have in common: an attached volume, and its key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from os_brick import encryptors
from os_brick.initiator.linux.call import Call, SystemClock
from os_brick.testing import FakeHost, block
from os_brick.testing.block import BlockDevice
from os_brick.testing.cryptsetup import CryptMapping
from os_brick.testing.device_mapper import Mapping
from os_brick.testing.storage import Unit

PASSPHRASE = "the passphrase\nof 'this' volume"
MIB = 1 << 20
_NO_CALL = Call("a test", SystemClock(), 60)


@dataclass
class Secret:
    """A managed object of the key manager (castellan)."""

    value: bytes = PASSPHRASE.encode()
    kind: str = "passphrase"

    def managed_type(self) -> str:
        return self.kind

    def get_encoded(self) -> bytes:
        return self.value


@dataclass
class KeyManager:
    """A key manager that knows one secret."""

    secret: Secret = field(default_factory=Secret)
    asked: list[tuple[Any, Any]] = field(default_factory=list)

    def get(self, context: Any, key_id: Any) -> Secret:
        self.asked.append((context, key_id))
        return self.secret


@dataclass(eq=False)
class Disk(BlockDevice):
    """A disk that is simply there."""

    unit: Unit = field(default_factory=lambda: Unit("3600", "1", 64 * MIB))

    def storage(self) -> tuple[str, Unit | None]:
        return block.ALIVE, self.unit


class Encrypted:
    """An encrypted volume that a connector has attached: a map, and the link that is handed out."""

    def __init__(
        self, host: FakeHost, provider: str = "luks", *, foreign: bool = False, lun: int = 1
    ) -> None:
        self.host = host
        self.provider = provider
        self.foreign = foreign
        self.lun = lun
        self.keys = KeyManager()
        self.metadata: dict[str, Any] = {
            "control_location": "front-end",
            "provider": provider,
            "cipher": "aes-xts-plain64",
            "key_size": 256,
            "encryption_key_id": "key-1",
            "volume_type_id": "type-1",
        }
        self.properties: dict[str, Any] = {"encrypted": True, "volume_id": "volume-1"}
        self.connect()
        self.connection_info: dict[str, Any] = {
            "driver_volume_type": "iscsi",
            "serial": "volume-1",
            "data": {**self.properties, "device_path": self.link},
        }

    def connect(self) -> None:
        """Attach the volume."""
        name = f"sd{'abcdef'[self.lun - 1]}"
        disk = Disk(name, (8, 16 * self.lun), f"devices/{name}", 64 * MIB)
        self.host.devices.add(disk, {})
        self.unit = disk.unit
        label = f"3600140500000000000000000000000{self.lun:02x}"
        self.raw: Mapping = self.host.mapper.create(Mapping, label, f"mpath-{label}", [disk])
        self.host.pass_time(1)
        self.link = f"/dev/disk/by-id/os-brick+dev+{self.raw.name}"
        self.link_to(self.raw.name)
        self.host.forget()

    def link_to(self, name: str) -> None:
        """Have the volume's link lead to a device."""
        self.host.host.changes.link(_NO_CALL, f"/dev/{name}", self.link)

    def unlink(self, link: str) -> None:
        """Remove a link."""
        self.host.host.changes.unlink(_NO_CALL, link)

    def encryptor(self, **more: Any) -> Any:
        """Return a new encryptor of the volume, as services make one for each call."""
        given = self.metadata | more
        execute = self.host.execute if self.foreign else None
        return encryptors.get_volume_encryptor(
            None, self.connection_info, self.keys, execute, host=self.host.host, **given
        )

    def attach(self, **more: Any) -> None:
        """Open the volume."""
        assert self.encryptor().attach_volume("context", **(self.metadata | more)) is None

    def detach(self) -> None:
        """Close the volume."""
        assert self.encryptor().detach_volume(**self.metadata) is None

    def extend(self) -> int | None:
        """Have the open volume take its device's size."""
        size: int | None = self.encryptor().extend_volume("context", **self.metadata)
        return size

    @property
    def label(self) -> str:
        """The name of its mapping."""
        name: str = self.encryptor().dev_name
        return name

    @property
    def mapping(self) -> CryptMapping | None:
        """Its mapping, if it is open."""
        found = self.host.mapper.find(self.label)
        return found if isinstance(found, CryptMapping) else None

    @property
    def leads_to(self) -> str:
        """The text of the link by which it is used."""
        return self.host.host.dev.link_target(self.link.removeprefix("/dev/")) or ""

    def lose_paths(self) -> None:
        """Have all reads and writes of its device fail."""
        self.raw.errors = True

    def mend_paths(self) -> None:
        """Have them work again."""
        self.raw.errors = False


class Connected(Encrypted):
    """The same by a connector, over iSCSI."""

    multipath = True

    def connect(self) -> None:
        """Attach the volume."""
        if not hasattr(self, "volume"):
            self.volume = self.host.iscsi_target(portals=1).lun(self.lun, size=64 * MIB)
            self.unit = self.volume.unit
            self.properties = {**self.volume.properties, **self.properties}
            self.connector = self.host.connector(use_multipath=self.multipath, foreign=self.foreign)
        self.info = self.connector.connect_volume(self.properties)
        self.link = self.info["path"]

    def disconnect(self) -> None:
        """Detach the volume."""
        self.connector.disconnect_volume(self.properties, self.info)
