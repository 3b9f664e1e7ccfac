# SPDX-License-Identifier: Apache-2.0
"""LVM's programs on a fake host: their options, reports, exit codes and texts, after LVM 2.03.16.

An option that is not modelled raises an ``AssertionError`` that names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from os_brick.testing.lvm import EXTENT, GIB, MIB, Group, Lvm, Volume
from os_brick.testing.process import Answer, Process

_UNITS = {"b": 1, "m": MIB, "g": GIB, "t": 1024 * GIB}
_NO_GROUP = '  Volume group "{0}" not found\n  Cannot process volume group {0}\n'
_SIGNATURE = (
    "WARNING: ext4 signature detected on /dev/{group}/{name} at offset 1080. Wipe it? [y/n]: [n]\n"
    "  Aborted wiping of ext4.\n  1 existing signature left on the device.\n"
    "  Failed to wipe signatures on logical volume {group}/{name}.\n"
    "  Aborting. Failed to wipe start of new LV.\n"
)
#: Options with a value, by program.
_REPORT_VALUES = {"--reportformat", "--units", "-o", "-S", "--config"}
_REPORT_FLAGS = {"--readonly", "--nosuffix", "--version"}
_CREATE_VALUES = {"-n", "--name", "-L", "-V", "-l", "-k", "-m", "--mirrorlog", "-R"}
_CREATE_FLAGS = {"-T", "--snapshot", "--nosync", "--type=mirror"}


class FailedError(Exception):
    """A program ends with an exit code and these words."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class LvmPrograms:
    """All of them."""

    def __init__(self, lvm: Lvm, run: Callable[[str, Process], Answer]) -> None:
        self._lvm = lvm
        #: Runs another program by name, for ``env``.
        self._run = run

    def programs(self) -> dict[str, Callable[[Process], Answer]]:
        """Return the programs by name."""
        found = {
            "vgs": self._vgs,
            "lvs": self._lvs,
            "pvs": self._pvs,
            "vgcreate": self._vgcreate,
            "lvchange": self._lvchange,
            "lvextend": self._lvextend,
            "lvremove": self._lvremove,
            "lvrename": self._lvrename,
            "lvconvert": self._lvconvert,
        }
        return {
            "env": self._env,
            "udevadm": _udevadm,
            "lvcreate": self._answered(self._lvcreate),
            **{name: _failing(one) for name, one in found.items()},
        }

    def _env(self, process: Process) -> Answer:
        """``env NAME=VALUE… PROGRAM…``"""
        words = process.words[1:]
        while "=" in words[0]:
            words = words[1:]
        process.words = words
        return self._run(words[0], process)

    # -- reports ------------------------------------------------------------------------------
    def _vgs(self, words: Sequence[str]) -> Answer:
        options, names = _parse(words, _REPORT_VALUES, _REPORT_FLAGS)
        if "--version" in options:
            return Answer(
                out=f"  LVM version:     {self._lvm.version}\n"
                "  Library version: 1.02.185 (2022-05-18)\n"
            )
        groups = self._named(names) if names else self._lvm.groups
        rows = [
            {
                "vg_name": one.name,
                "vg_size": str(one.size),
                "vg_free": str(one.free),
                "lv_count": str(len(one.volumes)),
                "vg_uuid": one.uuid,
            }
            for one in groups
        ]
        return _report("vg", rows, options)

    def _named(self, names: Sequence[str]) -> list[Group]:
        found = []
        for name in names:
            groups = self._lvm.find_groups(name)
            if not groups:
                raise FailedError(5, _NO_GROUP.format(name))
            if len(groups) > 1:
                raise FailedError(
                    5,
                    f"  Multiple VGs found with the same name: skipping {name}\n"
                    "  Use --select vg_uuid=<uuid> in place of the VG name.\n",
                )
            found += groups
        return found

    def _lvs(self, words: Sequence[str]) -> Answer:
        options, names = _parse(words, _REPORT_VALUES, _REPORT_FLAGS)
        groups = self._named(names) if names else self._lvm.groups
        epoch = "%s" in options.get("--config", "")
        rows = [
            {
                "vg_name": group.name,
                "lv_name": one.name,
                "lv_size": str(one.size),
                "lv_attr": _attributes(self._lvm, group, one, "--readonly" in options),
                "origin": one.origin,
                "pool_lv": one.pool,
                "lv_time": str(one.made_at) if epoch else "2022-05-18 10:00:00 +0000",
                # Not known while nobody may ask the device-mapper, or nothing is there to ask.
                "data_percent": one.percent
                if "--readonly" not in options and one.mapping is not None
                else "",
            }
            for group in groups
            for one in group.volumes.values()
        ]
        return _report("lv", rows, options)

    def _pvs(self, words: Sequence[str]) -> Answer:
        options, _names = _parse(words, _REPORT_VALUES, _REPORT_FLAGS)
        rows = [
            {
                "vg_name": group.name,
                "pv_name": "[unknown]" if disk.missing else disk.path,
                "pv_size": str(disk.size),
                "pv_free": str(disk.size - disk.used),
                "pv_missing": "missing" if disk.missing else "",
            }
            for group in self._lvm.groups
            for disk in group.disks
        ]
        return _report("pv", rows, options)

    # -- changes ------------------------------------------------------------------------------
    def _vgcreate(self, words: Sequence[str]) -> Answer:
        name, *paths = words
        if self._lvm.find_groups(name):
            raise FailedError(5, f"  A volume group called {name} already exists.\n")
        try:
            self._lvm.make_group(name, paths)
        except LookupError as exc:
            raise FailedError(5, f"  No device found for {exc.args[0]}.\n") from exc
        return Answer(out=f'  Volume group "{name}" successfully created\n')

    def _answered(
        self, program: Callable[[Sequence[str], bool], Answer]
    ) -> Callable[[Process], Answer]:
        """Hand on whether the program's questions are answered with yes."""

        def run(process: Process) -> Answer:
            yes = process.stdin.startswith("y")
            return _failing(lambda words: program(words, yes))(process)

        return run

    def _lvcreate(self, words: Sequence[str], yes: bool) -> Answer:
        options, names = _parse(words, _CREATE_VALUES, _CREATE_FLAGS)
        path = names[0]
        name = options.get("-n") or options.get("--name") or path.partition("/")[2]
        (group,) = self._named([path.partition("/")[0]])
        if name.startswith("snapshot"):
            raise FailedError(3, f'  Names starting "snapshot" are reserved: {name}\n')
        if name in group.volumes:
            text = f'  Logical Volume "{name}" already exists in volume group "{group.name}"\n'
            raise FailedError(5, text)
        made = self._made(group, name, path, options, tuple(words))
        if group.old_signature and made.kind in "-ms":
            if not yes:
                raise FailedError(5, _SIGNATURE.format(group=group.name, name=name))
            group.old_signature = False
        self._lvm.add(group, made)
        return Answer(out=f'  Logical volume "{name}" created.\n')

    def _made(
        self, group: Group, name: str, path: str, options: dict[str, str], words: tuple[str, ...]
    ) -> Volume:
        if "--snapshot" in options:
            _group, source = self._volume(path)
            if source.kind == "V":
                return Volume(
                    name, source.size, "V", source.name, source.pool, "0.00", skip=True, words=words
                )
            size = _size(options["-L"])
            self._check_room(group, size)
            source.kind = "o"
            return Volume(name, size, "s", source.name, percent="0.00", words=words)
        if "-V" in options:
            _group, pool = self._volume(path)
            size = _size(options["-V"])
            return Volume(name, size, "V", pool=pool.name, percent="0.00", words=words)
        if "-T" in options:
            if group.free < EXTENT:
                raise FailedError(5, f"  Insufficient free space in {group.name}\n")
            return Volume(name, group.free, "t", percent="0.00", words=words)
        size = _size(options["-L"])
        self._check_room(group, size)
        if options.get("--mirrorlog") == "mirrored" and not self._lvm.mirrored_logs:
            raise FailedError(5, '  Log type "mirrored" is DEPRECATED. Use disk log instead.\n')
        kind = "m" if "--type=mirror" in options else "-"
        return Volume(name, size, kind, words=words)

    def _check_room(self, group: Group, size: int) -> None:
        if size > group.free:
            raise FailedError(
                5, f'  Volume group "{group.name}" has insufficient free space: {size}\n'
            )

    def _volume(self, path: str) -> tuple[Group, Volume]:
        found = self._lvm.find(path)
        if found is None:
            group, _slash, name = path.partition("/")
            self._named([group])
            raise FailedError(5, f'  Failed to find logical volume "{group}/{name}"\n')
        return found

    def _lvchange(self, words: Sequence[str]) -> Answer:
        options, (path,) = _parse(words, {"-a", "-k"}, {"--yes", "-K", "--refresh"})
        if {"-K", "-k"} <= options.keys() and self._lvm.version.startswith("2.03"):
            raise FailedError(3, "  Command does not accept option: --ignoreactivationskip.\n")
        group, volume = self._volume(path)
        if options.get("-k") == "n":
            volume.skip = False
        if "--refresh" in options and volume.mapping is not None:
            self._lvm.resize(volume, volume.size)
            self._lvm.suspend(volume, False)
        if "-a" not in options:
            return Answer(out=f"  Logical volume {path} changed.\n")
        family = [volume, *self._lvm.snapshots_of(group, volume)]
        if options["-a"] == "n":
            for one in family:
                if not self._lvm.deactivate(one):
                    raise FailedError(5, f"  Logical volume {group.name}/{one.name} in use.\n")
            return Answer()
        if not volume.skip or "-K" in options:
            for one in family:
                self._lvm.activate(group, one)
        return Answer()

    def _lvextend(self, words: Sequence[str]) -> Answer:
        options, (path,) = _parse(words, {"-L"}, set())
        group, volume = self._volume(path)
        size = _size(options["-L"], volume.size)
        if volume.kind == "o" and volume.mapping is not None:
            raise FailedError(5, "  Snapshot origin volumes can be resized only while inactive.\n")
        if size <= volume.size:
            raise FailedError(5, f"  New size given ({size}) not larger than existing size\n")
        if volume.kind != "V":
            self._check_room(group, size - volume.size)
        self._lvm.resize(volume, size)
        return Answer(out=f"  Logical volume {path} successfully resized.\n")

    def _lvremove(self, words: Sequence[str]) -> Answer:
        _options, (path,) = _parse(words, {"--config"}, {"-f"})
        group, volume = self._volume(path)
        for one in [*self._lvm.snapshots_of(group, volume), volume]:
            if one.mapping is not None and one.mapping.openers:
                raise FailedError(
                    5, f"  Logical volume {group.name}/{one.name} contains a filesystem in use.\n"
                )
            self._lvm.deactivate(one)
            del group.volumes[one.name]
        self._settle_origin(group, volume.origin if volume.kind == "s" else "")
        return Answer(out=f'  Logical volume "{volume.name}" successfully removed\n')

    def _lvrename(self, words: Sequence[str]) -> Answer:
        group_name, old, new = words
        group, volume = self._volume(f"{group_name}/{old}")
        if new in group.volumes:
            raise FailedError(5, f'  Logical Volume "{new}" already exists in "{group_name}"\n')
        self._lvm.rename(group, volume, new)
        return Answer(out=f'  Renamed "{old}" to "{new}" in volume group "{group_name}"\n')

    def _lvconvert(self, words: Sequence[str]) -> Answer:
        _options, (path,) = _parse(words, set(), {"--merge"})
        if "/" not in path:
            raise FailedError(3, "  Please provide a volume group name\n")
        group, volume = self._volume(path)
        if not volume.origin:
            raise FailedError(5, f"  Command on LV {path} does not accept LV type linear.\n")
        self._lvm.deactivate(volume)
        del group.volumes[volume.name]
        self._settle_origin(group, volume.origin)
        return Answer(out=f"  Merging of volume {path} started.\n")

    def _settle_origin(self, group: Group, name: str) -> None:
        """Make an origin that has lost its last thick snapshot a plain volume again."""
        origin = group.volumes.get(name)
        if origin is not None and origin.kind == "o" and not self._lvm.snapshots_of(group, origin):
            origin.kind = "-"


def _udevadm(process: Process) -> Answer:
    """``udevadm settle``: udev here is never behind for long."""
    if process.words[1:] != ("settle",):
        raise AssertionError(f"udevadm: this fake does not know {' '.join(process.words)}")
    return Answer()


def _failing(program: Callable[[Sequence[str]], Answer]) -> Callable[[Process], Answer]:
    def run(process: Process) -> Answer:
        try:
            return program(process.words[1:])
        except FailedError as exc:
            return Answer(exc.code, err=str(exc))

    return run


def _parse(
    words: Sequence[str], valued: set[str], flags: set[str]
) -> tuple[dict[str, str], list[str]]:
    """Return options with their values, and the other words."""
    options: dict[str, str] = {}
    names = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in valued:
            options[word] = rest.pop(0)
        elif word in flags:
            options[word] = ""
        elif word.startswith("-"):
            raise AssertionError(f"LVM: this fake does not know {word} in {' '.join(words)}")
        else:
            names.append(word)
    return options, names


def _size(text: str, before: int = 0) -> int:
    """Return bytes of a size, rounded up to extents as LVM does."""
    number, letter = text.lstrip("+")[:-1], text[-1].lower()
    size = int(float(number) * _UNITS[letter]) + (before if text.startswith("+") else 0)
    return -(-size // EXTENT) * EXTENT


def _attributes(lvm: Lvm, group: Group, volume: Volume, readonly: bool) -> str:
    state = "X" if readonly else "a" if volume.mapping is not None else "-"
    return f"{volume.kind}wi-{state}-----"


def _report(kind: str, rows: list[dict[str, str]], options: dict[str, str]) -> Answer:
    """Write a report as ``--reportformat json`` does."""
    for wanted in ("--reportformat", "--units"):
        if options.get(wanted) not in ("json", "b"):
            raise AssertionError(f"LVM: this fake reports in JSON and bytes only, not {options}")
    columns = options["-o"].split(",")
    chosen = [row for row in rows if _selected(row, options.get("-S", ""))]
    unknown = [column for column in columns if rows and column not in rows[0]]
    if unknown:
        raise AssertionError(f"LVM: this fake does not report {unknown}")
    body = ",\n".join(
        "                  "
        + json.dumps({name: row[name] for name in columns}, separators=(", ", ":"))
        for row in chosen
    )
    return Answer(
        out=f'  {{\n      "report": [\n          {{\n              "{kind}": [\n{body}\n'
        "              ]\n          }\n      ]\n  }\n"
    )


def _selected(row: dict[str, str], selection: str) -> bool:
    if not selection:
        return True
    terms = [re.fullmatch(r'(\w+)="([^"]*)"', one.strip()) for one in selection.split("||")]
    if not all(terms):
        raise AssertionError(f"LVM: this fake does not know the selection {selection!r}")
    return any(row[term[1]] == term[2] for term in terms if term)
