# SPDX-License-Identifier: Apache-2.0
"""The ``nvme`` command in the ways of its versions, ``modprobe``, and the files below
``/etc/nvme``."""

from __future__ import annotations

import errno
import json
import re
import uuid
from collections.abc import Callable

from os_brick.testing.nvme import Controller, NvmeLayer, Refused
from os_brick.testing.process import Answer, Process
from os_brick.testing.world import World

_FOLDER = "/etc/nvme/"
_NOTHING = "hostnqn is not available -- use nvme gen-hostnqn\n"
_COMMAND_OPTIONS = {
    "-a": "address", "-s": "port", "-t": "transport", "-n": "nqn", "-q": "host_nqn",
    "-I": "host_id", "-Q": "queue_size", "-l": "loss", "-w": "host_traddr",
}  # fmt: skip


class Identity:
    """The files ``hostnqn`` and ``hostid``, and what the firmware says."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {
            "hostnqn": "nqn.2014-08.org.nvmexpress:uuid:7a1b2c3d-0000-4000-8000-000000000001\n",
            "hostid": "7a1b2c3d-0000-4000-8000-000000000001\n",
        }
        self.system_uuid = "7a1b2c3d-0000-4000-8000-000000000001"

    @property
    def nqn(self) -> str:
        """The host NQN; empty if the file is missing."""
        return self.files.get("hostnqn", "").strip()

    @property
    def host_id(self) -> str:
        """The host id; empty if the file is missing."""
        return self.files.get("hostid", "").strip()


class NvmeCli:
    """The ``nvme`` command."""

    def __init__(self, world: World, layer: NvmeLayer, identity: Identity) -> None:
        self._world = world
        self._layer = layer
        self._identity = identity
        #: Its version: decides exit codes and what it says.
        self.version = (2, 3)

    def __call__(self, process: Process) -> Answer:
        verb = process.words[1]
        verbs: dict[str, Callable[[Process], Answer]] = {
            "version": self._version,
            "connect": self._connect,
            "disconnect": self._disconnect,
            "ns-rescan": self._rescan,
            "ns-descs": self._describe,
            "list-ns": self._list,
            "id-ns": self._id_ns,
            "show-hostnqn": self._show,
            "gen-hostnqn": self._generate,
            "discover": lambda process: Answer(out='{"genctr":1,"records":[]}\n'),
        }
        if verb not in verbs:
            raise AssertionError(f"nvme: this fake does not know {verb}")
        return verbs[verb](process)

    def _version(self, process: Process) -> Answer:
        text = ".".join(map(str, self.version))
        if self.version < (2, 0):
            return Answer(out=f"nvme version {text}\n")
        return Answer(out=f"nvme version {text} (git {text})\nlibnvme version 1.3 (git 1.3)\n")

    # -- connections -----------------------------------------------------------------------
    def _connect(self, process: Process) -> Answer:
        given = _options(process.words[2:])
        if not self._layer.is_loaded:
            return self._failed(errno.ENOENT, "Failed to open /dev/nvme-fabrics")
        own = given.get("host_nqn", self._identity.nqn)
        host_id = given.get("host_id", self._identity.host_id)
        try:
            made = self._layer.create(
                given["nqn"],
                given["address"],
                int(given.get("port", 0)),
                given["transport"],
                own or "nqn.default",
                host_id or "default",
                process.unlocked_spend,
                process.unlocked_wait,
            )
        except Refused as exc:
            return self._failed(exc.errno or errno.EIO, "Failed to write to /dev/nvme-fabrics")
        if self.version < (1, 16):
            return Answer()
        said = f"device: {made.name}\n"
        return Answer(out=said if self.version < (2, 1) else f"connecting to {said}")

    def _failed(self, error: int, what: str) -> Answer:
        """How a connect fails, version by version."""
        text = {errno.EALREADY: "Operation already in progress"}.get(error, f"errno {error}")
        if self.version >= (2, 0):
            if error == errno.EALREADY:
                return Answer(1, err="already connected\n")
            return Answer(1, err=f"could not add new controller: {text}\n")
        if self.version <= (1, 8):
            return Answer(-error % 256, err=f"{what}: {text}\n")
        if self.version <= (1, 12):
            return Answer(70, err=f"{what}: {text}\n")
        return Answer(error, err=f"{what}: {text}\n")

    def _disconnect(self, process: Process) -> Answer:
        name = _after(process.words, "-d")
        found = self._layer.find(name)
        if found is None:
            return Answer(0 if self.version >= (2, 0) else 1, err=f"Did not find device {name}\n")
        process.unlocked_spend(self._world.delays.delete_s)
        self._layer.delete(found)
        return Answer()

    # -- questions -------------------------------------------------------------------------
    def _controller(self, process: Process) -> Controller | None:
        return self._layer.find(process.words[2])

    def _rescan(self, process: Process) -> Answer:
        found = self._controller(process)
        if found is None:
            return Answer(1, err=f"{process.words[2]}: No such file or directory\n")
        self._layer.scan(found)
        return Answer()

    def _describe(self, process: Process) -> Answer:
        found, nsid = self._controller(process), int(_after(process.words, "-n"))
        if found is None:
            return Answer(1, err="No such file or directory\n")
        process.unlocked_wait(found.answers)
        if not found.subsystem.describes:
            return self._status(0x4002, "INVALID_FIELD", "Invalid Field in Command")
        unit = found.subsystem.shown(found.index).get(nsid)
        if unit is None:
            return self._status(0x400B, "INVALID_NS", "Invalid Namespace or Format")
        lines = [f"NVME Namespace Identification Descriptors NS {nsid}:"]
        for kind, number, value in (("nguid", 2, unit.nguid), ("uuid", 3, unit.uuid)):
            if value:
                shown = value if kind == "uuid" else value.replace("-", "")
                lines += [f"loc     : {number}", f"nidt    : {number}", "nidl    : 16"]
                lines += [f"type    : {kind}", f"{kind:<8}: {shown}", ""]
        return Answer(out="\n".join(lines))

    def _status(self, status: int, old: str, new: str) -> Answer:
        """How a command ends that the subsystem refuses, version by version."""
        if self.version <= (1, 8):
            return Answer(status % 256, err=f"NVMe Status:{old}({status:x})\n")
        if self.version < (2, 0):
            return Answer(status % 256, err=f"NVMe status: {old}: Some text({status:#x})\n")
        return Answer(1, err=f"NVMe status: {new}: Some text({status:#x})\n")

    def _list(self, process: Process) -> Answer:
        found = self._controller(process)
        if found is None:
            return Answer(1, err="No such file or directory\n")
        process.unlocked_wait(found.answers)
        numbers = sorted(found.subsystem.shown(found.index))
        return Answer(out="".join(f"[{at:4}]:{nsid:#x}\n" for at, nsid in enumerate(numbers)))

    def _id_ns(self, process: Process) -> Answer:
        found = self._controller(process)
        if found is None:
            return Answer(1, err="No such file or directory\n")
        process.unlocked_wait(found.answers)
        unit = found.subsystem.shown(found.index).get(int(_after(process.words, "-n")))
        if unit is None:
            return self._status(0x400B, "INVALID_NS", "Invalid Namespace or Format")
        formats = [{"ms": 0, "ds": size.bit_length() - 1, "rp": 0} for size in unit.formats]
        blocks = unit.size // unit.block_size
        told = {"nsze": blocks, "ncap": blocks, "nuse": blocks, "nlbaf": len(formats) - 1}
        told["flbas"] = unit.formats.index(unit.block_size)
        return Answer(out=json.dumps({**told, "nguid": unit.nguid, "lbafs": formats}))

    # -- identity --------------------------------------------------------------------------
    def _show(self, process: Process) -> Answer:
        if self.version <= (1, 9):
            return Answer(231, out="ERROR: Invalid sub-command 'show-hostnqn'\n")
        if not self._identity.nqn:
            return Answer(1 if self.version >= (2, 0) else 254, err=_NOTHING)
        return Answer(out=f"{self._identity.nqn}\n")

    def _generate(self, process: Process) -> Answer:
        return Answer(out=f"nqn.2014-08.org.nvmexpress:uuid:{uuid.uuid4()}\n")


def _options(words: tuple[str, ...]) -> dict[str, str]:
    found = {}
    rest = iter(words)
    for word in rest:
        if word not in _COMMAND_OPTIONS:
            raise AssertionError(f"nvme connect: this fake does not know {word}")
        found[_COMMAND_OPTIONS[word]] = next(rest)
    return found


def _after(words: tuple[str, ...], option: str) -> str:
    return words[words.index(option) + 1]


class EtcNvme:
    """The programs that read and make files, where they are asked for ``/etc/nvme``."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def around(self, program: Callable[[Process], Answer]) -> Callable[[Process], Answer]:
        """Return a program that does its own work for files elsewhere."""

        def run(process: Process) -> Answer:
            here = process.words[-1].startswith(_FOLDER.rstrip("/"))
            return self._run(process) if here else program(process)

        return run

    def dmidecode(self, process: Process) -> Answer:
        """``dmidecode -ssystem-uuid``; there is no firmware to ask without a UUID."""
        found = self._identity.system_uuid
        return Answer(out=f"{found}\n") if found else Answer(1, err="# No SMBIOS found\n")

    def alone(self, process: Process) -> Answer:
        """A program that is known for these files only."""
        return self._run(process)

    def _run(self, process: Process) -> Answer:
        files = self._identity.files
        words = [word for word in process.words[1:] if not word.startswith("-")]
        names = [word.removeprefix(_FOLDER) for word in words]
        match process.words[0]:
            case "cat" if names[0] in files:
                return Answer(out=files[names[0]])
            case "tee":
                files[names[0]] = process.stdin
            case "ln" if names[1] not in files:
                files[names[1]] = files[names[0]]
            case "mv":
                files[names[1]] = files.pop(names[0])
            case "rm":
                files.pop(names[0], None)
            case "mkdir":
                pass
            case _:
                why = "File exists" if process.words[0] == "ln" else "No such file or directory"
                return Answer(1, err=f"{process.words[0]}: {words[-1]}: {why}\n")
        return Answer()


def modprobe(layer: NvmeLayer) -> Callable[[Process], Answer]:
    """Return the ``modprobe`` command, for the transports of NVMe."""

    def run(process: Process) -> Answer:
        if not re.fullmatch(r"nvme-(tcp|rdma|fc|fabrics)", process.words[1]):
            return Answer(1, err=f"modprobe: FATAL: Module {process.words[1]} not found.\n")
        layer.load()
        return Answer()

    return run


class RootFilesystem:
    """What ``findmnt`` and ``blkid`` tell of the root file system."""

    source = "/dev/vda1"
    uuid = "cf2b9d3e-5f0a-4b6e-9d0a-3a4d5b8a7c11"

    def findmnt(self, process: Process) -> Answer:
        """``findmnt -v / -n -o SOURCE``"""
        if "-v" not in process.words:
            return Answer(out=f"{self.source}[/@]\n")
        return Answer(out=f"{self.source}\n")

    def around(self, program: Callable[[Process], Answer]) -> Callable[[Process], Answer]:
        """Return ``blkid`` for the root file system, and another program for the rest."""

        def run(process: Process) -> Answer:
            if process.words[1] != self.source:
                return program(process)
            return Answer(out=f"{self.uuid}\n")

        return run
