# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes as a service uses them: a connector, an encryptor for each call, a key."""

from __future__ import annotations

import copy
import os
from typing import Any

from os_brick import encryptors

from ..targets import lio
from . import data, host_state, kernel, service
from .lab import MIB, Lab, properties

#: It has a newline and quotes in it: cut or masked by pattern, it would not work, or show.
PASSPHRASE = 's3cr\'et "words"\nof this volume'
#: Pieces of it that must be nowhere.
PIECES = ("s3cr'et", "of this volume", "words")
MAGIC = b"LUKS\xba\xbe"


def load() -> None:
    """Load the modules that opening a volume needs."""
    kernel.load("dm_crypt", "xts", "aes_generic", "algif_skcipher")


class Keys:
    """A key manager with one secret."""

    def __init__(self, passphrase: str = PASSPHRASE) -> None:
        self._passphrase = passphrase

    def get(self, context: Any, key_id: str) -> Keys:
        """Return the secret; it is its own managed object."""
        return self

    def managed_type(self) -> str:
        """Return its kind."""
        return "passphrase"

    def get_encoded(self) -> bytes:
        """Return it."""
        return self._passphrase.encode()


class Encrypted:
    """One encrypted volume over two portals, and the service that uses it.

    Connecting and opening are steps of their own, as services make them.
    """

    def __init__(self, lab: Lab, provider: str, host: service.Service | None = None) -> None:
        load()
        self.lab = lab
        self.provider = provider
        self.passphrase = PASSPHRASE
        target, self.volume = lab.target(portals=2)
        self.target = target
        self.given = properties(target, several=True, encrypted=True)
        self.metadata: dict[str, Any] = {
            "control_location": "front-end",
            "provider": provider,
            "cipher": "aes-xts-plain64",
            "key_size": 256,
            "encryption_key_id": "key-1",
        }
        self.host = host or lab.service(multipath=True)
        self.link = ""
        self.info: dict[str, Any] = {}

    # The connector's part.

    def connect(self) -> None:
        """Attach the volume."""
        self.info = self.host.attach(self.given)
        self.link = self.info["path"]
        assert self.link.startswith("/dev/disk/by-id/os-brick+dev+dm-"), self.info

    def disconnect(self) -> None:
        """Detach the volume; its link goes with it."""
        self.host.detach(self.given, self.info)
        assert not os.path.lexists(self.link)

    # The encryptor's part.

    def encryptor(self) -> Any:
        """Make an encryptor, as a service does for each call."""
        connection = {
            "driver_volume_type": "iscsi",
            "serial": "volume-1",
            "data": {**self.given, "device_path": self.link},
        }
        before = copy.deepcopy(connection)
        found = encryptors.get_volume_encryptor(
            "sudo", connection, Keys(self.passphrase), **self.metadata
        )
        assert connection == before
        return found

    def open(self) -> None:
        """Open the connected volume."""
        self.encryptor().attach_volume(None, **self.metadata)
        self.expect_open()

    def close(self) -> None:
        """Close the volume; it stays connected."""
        self.encryptor().detach_volume(**self.metadata)
        self.expect_closed()

    def extend(self) -> int | None:
        """Have the open volume take its device's size."""
        size: int | None = self.encryptor().extend_volume(None, **self.metadata)
        return size

    # Both.

    def attach(self) -> None:
        """Connect and open the volume."""
        with self.lab.timed("connect"):
            self.connect()
        with self.lab.timed("open"):
            self.open()

    def detach(self) -> None:
        """Close and disconnect the volume."""
        with self.lab.timed("close"):
            self.close()
        with self.lab.timed("disconnect"):
            self.disconnect()

    # What there is to see, by other means than the library's.

    @property
    def label(self) -> str:
        """The name that its mapping has to have."""
        return f"crypt-{os.path.basename(self.link)}"

    @property
    def raw(self) -> str:
        """Path of its multipath map."""
        return f"/dev/{host_state.map_of(self.volume.wwid)}"

    def mapping(self) -> str | None:
        """Return the kernel name of its mapping, if it is open."""
        for name in kernel.names("/sys/block"):
            if kernel.read(f"/sys/block/{name}/dm/name") == self.label:
                return name
        return None

    def offset(self) -> int:
        """Return where its data begins on the device, in bytes: LUKS1 aligns it to the storage."""
        table = kernel.run("dmsetup", "table", self.label).split()
        assert table[2] == "crypt", table
        return int(table[7]) * 512

    def expect_open(self) -> None:
        """Insist that the link leads to a mapping over the volume's own map."""
        name = self.mapping()
        assert name is not None, "there is no mapping"
        kind = {"luks": "CRYPT-LUKS1-", "luks2": "CRYPT-LUKS2-", "plain": "CRYPT-PLAIN-"}
        uuid = kernel.read(f"/sys/block/{name}/dm/uuid")
        assert uuid.startswith(kind[self.provider]), uuid
        assert kernel.names(f"/sys/block/{name}/slaves") == [os.path.basename(self.raw)]
        assert os.readlink(self.link) == f"/dev/mapper/{self.label}"
        assert os.path.realpath(self.link) == f"/dev/{name}"

    def expect_closed(self) -> None:
        """Insist that there is no mapping, and that the link leads to the map."""
        assert self.mapping() is None
        assert os.path.realpath(self.link) == self.raw, os.path.realpath(self.link)

    def header(self) -> bytes:
        """Return the start of what the array holds."""
        return self.volume.read(0, 64 * 1024)

    def expect_no_clear_text(self, clear: bytes) -> None:
        """Insist that no piece of some data is on the array."""
        held = self.volume.read(0, self.volume.size)
        assert clear[:32] not in held, "the array holds clear text"
        assert held.strip(b"\0"), "nothing has reached the array"

    def expect_secret(self, *said: object) -> None:
        """Insist that the passphrase is in no log, and in none of these."""
        for text in (self.lab.log(), *map(str, said)):
            for piece in PIECES:
                assert piece not in text, f"the passphrase is told: {piece}"

    def pattern(self) -> bytes:
        """Return data that only this volume has."""
        return data.pattern(f"clear text of {self.volume.name}", MIB)


def make_on_array(
    volume: lio.Volume, *, passphrase: str = PASSPHRASE, version: str = "luks1"
) -> None:
    """Make a LUKS volume on the array's side, quickly."""
    fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    kernel.run(
        *("cryptsetup", "--batch-mode", "luksFormat", "--type", version, "--key-file=-", *fast),
        str(volume.file),
        stdin=passphrase,
    )
