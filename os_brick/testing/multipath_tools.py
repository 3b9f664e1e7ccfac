# SPDX-License-Identifier: Apache-2.0
"""The ``multipath`` and ``multipathd`` commands of multipath-tools 0.9.4."""

from __future__ import annotations

import re
from collections.abc import Callable

from os_brick.testing import block
from os_brick.testing.block import Devices
from os_brick.testing.device_mapper import DeviceMapper, Mapping, MultipathMap
from os_brick.testing.multipath import Multipathd
from os_brick.testing.process import Answer, Process
from os_brick.testing.scsi import Disk
from os_brick.testing.world import World

_OK = Answer(out="ok\n")
_FAIL = Answer(1, out="fail\n")


class _Tools:
    """What both commands need."""

    def __init__(
        self, world: World, devices: Devices, mapper: DeviceMapper, daemon: Multipathd
    ) -> None:
        self._world = world
        self._devices = devices
        self._mapper = mapper
        self._daemon = daemon

    def _map(self, name: str) -> MultipathMap | None:
        found = self._mapper.find(name)
        return found if isinstance(found, MultipathMap) else None

    def _disk(self, name: str) -> Disk | None:
        found = self._devices.find(name if "/" in name else f"/dev/{name}")
        return found if isinstance(found, Disk) else None


class Multipath(_Tools):
    """``multipath``."""

    def __call__(self, process: Process) -> Answer:
        option, *names = process.words[1:]
        verbs: dict[str, Callable[[Process, list[str]], Answer]] = {
            "-a": self._add,
            "-w": self._remove_wwid,
            "-f": self._flush,
            "-C": self._check,
            "-l": self._show,
            "-ll": self._show,
            "-r": self._reload,
        }
        if option not in verbs:
            raise AssertionError(f"multipath: this fake does not know {' '.join(process.words)}")
        return verbs[option](process, names)

    def _add(self, process: Process, names: list[str]) -> Answer:
        disk = self._disk(names[0]) if names[0].startswith("/") else None
        wwid = disk.wwid if disk is not None else names[0]
        self._daemon.wwids.add(wwid)
        return Answer(out=f"wwid '{wwid}' added\n")

    def _remove_wwid(self, process: Process, names: list[str]) -> Answer:
        self._daemon.wwids.discard(names[0])
        return Answer(out=f"wwid '{names[0]}' removed\n")

    def _flush(self, process: Process, names: list[str]) -> Answer:
        over = self._map(names[0])
        if over is None:
            # By wwid with friendly names on: nothing is done and success told (Launchpad bug
            # 1663925).
            known = self._daemon.map_of(names[0]) is not None
            return (
                Answer()
                if known
                else Answer(1, out=f"{_DATE} | {names[0]} is not a multipath device\n")
            )
        if over.dirty:
            process.unlocked_wait(lambda: over.storage()[0] != block.HANGS or not over.dirty)
        # Mappings of its partitions go with it.
        for holder in list(over.holders):
            if isinstance(holder, Mapping) and holder.uuid.startswith("part"):
                self._mapper.remove(holder)
        if not self._mapper.remove(over):
            return Answer(
                1,
                out=f"{_DATE} | {over.dm_name}: map in use\n"
                f"{_DATE} | failed to remove multipath map {over.dm_name}\n",
            )
        return Answer()

    def _check(self, process: Process, names: list[str]) -> Answer:
        over = self._map(names[0])
        return Answer(0 if over is not None and over.usable else 1)

    def _reload(self, process: Process, names: list[str]) -> Answer:
        for disk in list(self._daemon.paths):
            self._daemon.consider(disk)
        return Answer()

    def _show(self, process: Process, names: list[str]) -> Answer:
        maps = self._daemon.maps()
        if names:
            disk = self._disk(names[0])
            over = self._daemon.map_over(disk) if disk is not None else self._map(names[0])
            maps = [over] if over is not None else []
        return Answer(out="".join(_topology(one) for one in maps))


class MultipathdClient(_Tools):
    """``multipathd`` as a client of the running daemon."""

    def __call__(self, process: Process) -> Answer:
        if not self._daemon.running:
            return Answer(1, err="ux_socket_connect: Connection refused\n")
        words = " ".join(process.words[1:])
        for pattern, answer in self._verbs():
            match = re.fullmatch(pattern, words)
            if match:
                self._world.notify()
                return answer(match)
        raise AssertionError(f"multipathd: this fake does not know {words!r}")

    def _verbs(self) -> list[tuple[str, Callable[[re.Match[str]], Answer]]]:
        show = "(?:show|list) "
        return [
            (f"{show}status", self._status),
            (f"{show}daemon", lambda match: Answer(out="pid 4711 running\n")),
            (f"{show}paths (?:raw )?format (?P<format>.*)", self._show_paths),
            (f"{show}maps (?:raw )?format (?P<format>.*)", self._show_maps),
            ("add path (?P<disk>.*)", self._add_path),
            ("(?:del|remove) path (?P<disk>.*)", self._del_path),
            ("(?:del|remove) map (?P<map>.*)", self._del_map),
            ("disablequeueing map (?P<map>.*)", lambda match: self._queueing(match, False)),
            ("restorequeueing map (?P<map>.*)", lambda match: self._queueing(match, True)),
            ("resize map (?P<map>.*)", self._resize),
            ("reconfigure", lambda match: _OK),
        ]

    def _status(self, match: re.Match[str]) -> Answer:
        count = len(self._daemon.paths)
        return Answer(out=f"path checker states:\nup {count:>17}\n\npaths: {count}\nbusy: False\n")

    def _show_paths(self, match: re.Match[str]) -> Answer:
        return Answer(
            out="".join(
                _formatted(match["format"], self._path_values(disk)) for disk in self._daemon.paths
            )
        )

    def _path_values(self, disk: Disk) -> dict[str, str]:
        over = self._daemon.map_over(disk)
        alive = disk.storage()[0] == block.ALIVE
        return {
            "d": disk.name,
            "i": str(disk.device.hctl) if disk.device else "",
            "w": disk.wwid,
            "m": over.dm_name if over is not None else "[orphan]",
            "D": disk.dev,
            "t": ("active" if alive else "failed") if over is not None else "undef",
            "T": "ready" if alive else "faulty",
            "o": disk.device.state if disk.device else "",
        }

    def _show_maps(self, match: re.Match[str]) -> Answer:
        return Answer(
            out="".join(
                _formatted(
                    match["format"],
                    {
                        "n": one.dm_name,
                        "w": one.wwid,
                        "d": one.name,
                        "N": str(len(one.slaves)),
                        "Q": "on" if one.queueing else "off",
                        "t": "active",
                    },
                )
                for one in self._daemon.maps()
            )
        )

    def _add_path(self, match: re.Match[str]) -> Answer:
        disk = self._disk(match["disk"])
        if disk is None or self._daemon.blacklist:
            return _FAIL if disk is None else Answer(1, out="blacklisted\n")
        self._daemon.consider(disk, by_command=True)
        return _OK

    def _del_path(self, match: re.Match[str]) -> Answer:
        name = match["disk"].removeprefix("/dev/")
        found = [disk for disk in self._daemon.paths if disk.name == name]
        return _OK if found and all(self._daemon.forget(disk) for disk in found) else _FAIL

    def _del_map(self, match: re.Match[str]) -> Answer:
        over = self._map(match["map"])
        return _OK if over is not None and self._mapper.remove(over) else _FAIL

    def _queueing(self, match: re.Match[str], restore: bool) -> Answer:
        over = self._map(match["map"])
        if over is None:
            return _FAIL
        if restore:
            self._daemon.disabled_queueing.discard(over.wwid)
        else:
            self._daemon.disabled_queueing.add(over.wwid)
        self._daemon.set_queueing(over, restore and self._daemon.no_path_retry == "queue")
        return _OK

    def _resize(self, match: re.Match[str]) -> Answer:
        over = self._map(match["map"])
        if over is None:
            return _FAIL
        sizes = {path.size for path in over.slaves}
        if len(sizes) != 1:
            return _FAIL
        self._devices.resize(over, sizes.pop())
        return _OK


_DATE = "Nov 22 15:00:00"


def _formatted(text: str, values: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise AssertionError(f"multipathd: this fake does not know the format %{match[1]}")
        return values[match[1]]

    return re.sub("%(.)", value, text) + "\n"


def _topology(over: MultipathMap) -> str:
    lines = [
        f"{over.dm_name} ({over.wwid}) {over.name} LIO-ORG,disk"
        if over.dm_name != over.wwid
        else f"{over.wwid} {over.name} LIO-ORG,disk",
        f"size={over.size // 1024**2}M features='{'1 queue_if_no_path' if over.queueing else '0'}' "
        "hwhandler='1 alua' wp=rw",
    ]
    for path in over.slaves:
        lines.append("`-+- policy='service-time 0' prio=50 status=active")
        hctl = path.device.hctl if isinstance(path, Disk) and path.device else "#:#:#:#"
        state = "ready" if not path.gone and path.storage()[0] == block.ALIVE else "faulty"
        lines.append(
            f"  `- {hctl} {path.name} {path.number[0]}:{path.number[1]} active {state} running"
        )
    return "\n".join(lines) + "\n"
