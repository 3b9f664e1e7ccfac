# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes: headers on the storage, mappings of dm-crypt, ``cryptsetup`` and ``blkid``.

Exit codes are those of cryptsetup 2.6.1, and blkid of util-linux 2.38.1, tried by hand: both say
"nothing there" of a device that cannot be read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from os_brick.testing import block
from os_brick.testing.block import BlockDevice, Devices
from os_brick.testing.device_mapper import DeviceMapper, Mapping
from os_brick.testing.process import Answer, Process
from os_brick.testing.storage import LuksHeader, Unit
from os_brick.testing.world import World

_SECTOR = 512
#: What a header of each version takes.
HEADER_BYTES = {1: 2 << 20, 2: 16 << 20}
_TAKES_VALUE = frozenset({"--type", "--cipher", "--key-size", "--key-file"})
_KNOWN = frozenset({"--verbose", "--batch-mode", "--test-passphrase"})


@dataclass(eq=False)
class CryptMapping(Mapping):
    """A mapping of dm-crypt."""

    header_bytes: int = 0
    version: int = 0
    passphrase: str = ""


class Cryptsetup:
    """The ``cryptsetup`` command."""

    def __init__(self, world: World, devices: Devices, mapper: DeviceMapper) -> None:
        self._world = world
        self._devices = devices
        self._mapper = mapper
        self._numbers = itertools.count(1)
        self._verbs: dict[str, Callable[[Process, list[str], dict[str, str]], Answer]] = {
            "isLuks": self._is_luks,
            "luksFormat": self._format,
            "luksOpen": self._open,
            "open": self._open,
            "luksClose": self._close,
            "close": self._close,
            "resize": self._resize,
            "status": self._status,
        }

    def __call__(self, process: Process) -> Answer:
        options, words = _parse(process.words[1:])
        verb = words.pop(0)
        if verb not in self._verbs:
            raise AssertionError(f"cryptsetup: this fake does not know {verb}")
        return self._verbs[verb](process, words, options)

    def _storage(self, process: Process, device: BlockDevice) -> Unit | None:
        """Return what a device reads and writes; None if that fails. Waits while it hangs."""
        process.unlocked_wait(lambda: device.storage()[0] != block.HANGS)
        state, unit = device.storage()
        return unit if state == block.ALIVE else None

    def _header(self, process: Process, device: BlockDevice) -> LuksHeader | None:
        unit = self._storage(process, device)
        header = unit.luks if unit else None
        return None if header is None or header.damaged else header

    def _is_luks(self, process: Process, words: list[str], options: dict[str, str]) -> Answer:
        device = self._devices.find(words[0])
        if device is None:
            return Answer(4, err=_failed(4, f"Device {words[0]} does not exist or access denied."))
        if self._header(process, device) is None:
            return Answer(1, err=_failed(1))
        return Answer(out="Command successful.\n")

    def _format(self, process: Process, words: list[str], options: dict[str, str]) -> Answer:
        version = {"luks1": 1, "luks2": 2}[options["--type"]]
        device = self._devices.find(words[0])
        if device is None:
            return Answer(4, err=f"Device {words[0]} does not exist or access denied.\n")
        if device.claimed:
            return Answer(5, err=f"Cannot use device {words[0]} which is in use.\n")
        unit = self._storage(process, device)
        if unit is None:
            return Answer(1, err="Device wipe error, offset 0.\n")
        unit.luks = LuksHeader(version, process.stdin, f"{next(self._numbers):032x}")
        unit.signature = ""
        return Answer()

    def _open(self, process: Process, words: list[str], options: dict[str, str]) -> Answer:
        device = self._devices.find(words[0])
        label = words[1] if len(words) > 1 else ""
        if label and self._mapper.find(label) is not None:
            return Answer(5, err=f"Device {label} already exists.\n")
        if device is None:
            return Answer(4, err=f"Device {words[0]} does not exist or access denied.\n")
        if options.get("--type") == "plain":
            return self._map(process, device, label, "CRYPT-PLAIN", 0, 0)
        header = self._header(process, device)
        if header is None:
            return Answer(1, err=f"Device {words[0]} is not a valid LUKS device.\n")
        if header.passphrase != process.stdin:
            return Answer(2, err="No key available with this passphrase.\n")
        if "--test-passphrase" in options:
            return Answer()
        kind = f"CRYPT-LUKS{header.version}-{header.uuid}"
        return self._map(process, device, label, kind, HEADER_BYTES[header.version], header.version)

    def _map(
        self,
        process: Process,
        device: BlockDevice,
        label: str,
        kind: str,
        header_bytes: int,
        version: int,
    ) -> Answer:
        if device.claimed:
            return Answer(5, err=f"Cannot use device {device.name} which is in use.\n")
        made = self._mapper.create(
            CryptMapping,
            label,
            f"{kind}-{label}",
            [device],
            header_bytes=header_bytes,
            version=version,
            passphrase=process.stdin,
        )
        self._devices.resize(made, device.size - header_bytes)
        process.unlocked_wait(lambda: self._world.dev.exists(f"mapper/{label}"))
        return Answer()

    def _close(self, process: Process, words: list[str], options: dict[str, str]) -> Answer:
        found = self._mapper.find(words[0])
        if found is None:
            return Answer(4, err=f"Device {words[0]} is not active.\n")
        if not isinstance(found, CryptMapping):
            return Answer(1, err=f"Device {words[0]} is not a crypt device.\n")
        if not self._mapper.remove(found):
            return Answer(5, err=f"Device {words[0]} is still in use.\n")
        process.unlocked_wait(lambda: not self._world.dev.exists(f"mapper/{words[0]}"))
        return Answer()

    def _resize(self, process: Process, words: list[str], options: dict[str, str]) -> Answer:
        found = self._mapper.find(words[0])
        if not isinstance(found, CryptMapping):
            return Answer(4, err=f"Device {words[0]} is not active.\n")
        if found.version == 2 and found.passphrase != process.stdin:
            return Answer(2, err="No key available with this passphrase.\n")
        self._devices.resize(found, found.slaves[0].size - found.header_bytes)
        return Answer()

    def _status(self, process: Process, words: list[str], options: dict[str, str]) -> Answer:
        found = self._mapper.find(words[0])
        if found is None:
            return Answer(4, out=f"/dev/mapper/{words[0]} is inactive.\n")
        if not isinstance(found, CryptMapping):
            return Answer(1, out=f"/dev/mapper/{words[0]} is active.\n  type:    n/a\n")
        sectors = found.size // _SECTOR
        return Answer(out=f"/dev/mapper/{words[0]} is active.\n  size:    {sectors} sectors\n")


class Blkid:
    """``blkid --probe --output export DEVICE``."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def __call__(self, process: Process) -> Answer:
        if "--probe" not in process.words:
            raise AssertionError("blkid without --probe would answer from its cache")
        device = self._devices.find(process.words[-1])
        if device is None:
            return Answer(2)
        process.unlocked_wait(lambda: device.storage()[0] != block.HANGS)
        state, unit = device.storage()
        if state != block.ALIVE or unit is None:
            return Answer(2)
        found = unit.signature
        if unit.luks is not None and not unit.luks.damaged:
            found = "crypto_LUKS"
        return Answer(out=f"DEVNAME={process.words[-1]}\nTYPE={found}\n") if found else Answer(2)


def _parse(words: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Return the options, and the other words in their order."""
    options: dict[str, str] = {}
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            rest.append(word)
        elif name in _TAKES_VALUE:
            options[name] = value if equals else next(waiting)
        elif name in _KNOWN:
            options[name] = ""
        else:
            raise AssertionError(f"cryptsetup: this fake does not know {word}")
    if options.get("--key-file", "-") != "-":
        raise AssertionError("cryptsetup: a passphrase belongs on standard input")
    return options, rest


def _failed(code: int, before: str = "") -> str:
    what = {1: "wrong or missing parameters", 4: "wrong device or file specified"}[code]
    said = f"{before}\n" if before else ""
    return f"{said}Command failed with code -{code} ({what}).\n"
