# SPDX-License-Identifier: Apache-2.0
"""LVM's programs: run within a call, again if they crash, their reports as values.

``lvs --readonly`` and ``vgs --readonly`` take no lock and so wait for nobody, but do not ask the
device-mapper (lvm(8)): how full a pool is has to be asked without it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.programs import Result
from os_brick.local_dev import lvm_reports
from os_brick.local_dev.lvm_reports import LogicalVolume, PhysicalVolume, VolumeGroup

LOG = logging.getLogger(__name__)

#: What every command starts with whose answer is read.
PREFIX = ("env", "LC_ALL=C")

# How a program ends that died of SIGSEGV: as a shell or sudo tell it, and as its parent sees it.
# LVM does so at times without having done harm (bugs 1901783, 1932188, 1940436).
_CRASHED = frozenset({139, -11})
_PAUSES_AFTER_CRASHES_S = (0.5, 0.25)

_REPORT_LIMIT_S = 120.0
#: Writing a volume's first blocks or removing many snapshots takes its time.
CHANGE_LIMIT_S = 600.0

_JSON = ("--reportformat", "json", "--units", "b", "--nosuffix")
_EPOCH = ("--config", 'report { time_format = "%s" }')
# lvm(8), "Valid names"; the rest would be options, paths, or part of a selection.
_NAME = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]*")


def check_name(name: object, what: str) -> str:
    """Return a name that LVM may be given.

    :param what: what it names, for the error.
    :raises InvalidParameterValue: it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise exception.InvalidParameterValue(
            err=f"{what}: {name!r} is not a name of letters, digits and + _ . -"
        )
    return name


def prefix_of(lvm_conf: str | None, suppress_fd_warn: bool) -> tuple[str, ...]:
    """Return what the commands of one object start with.

    :param lvm_conf: path of the ``lvm.conf`` to use; ignored if there is no such file.
    :param suppress_fd_warn: have LVM say nothing of file descriptors that it inherited.
    """
    words: tuple[str, ...] = PREFIX
    if lvm_conf and os.path.isfile(lvm_conf):
        words += (f"LVM_SYSTEM_DIR={os.path.dirname(lvm_conf)}",)
    if suppress_fd_warn:
        words += ("LVM_SUPPRESS_FD_WARNINGS=1",)
    return words


@dataclass(frozen=True)
class Tools:
    """The programs, on one host.

    :ivar prefix: what commands start with whose answer is read, and that make volumes.
    """

    host: Host
    prefix: tuple[str, ...] = PREFIX

    # -- running ------------------------------------------------------------------------------
    def run(
        self, call: Call, *words: str, limit_s: float = CHANGE_LIMIT_S, stdin: str | None = None
    ) -> Result:
        """Run a program, as it stands."""
        return self.host.programs.run(call, *words, limit_s=limit_s, stdin=stdin)

    def run_patiently(
        self,
        call: Call,
        *words: str,
        done: Callable[[], bool] | None = None,
        limit_s: float = CHANGE_LIMIT_S,
        stdin: str | None = None,
    ) -> Result:
        """Run a program again if it dies of a segmentation fault: three times in all.

        :param done: asked after a crash whether the program had done its work all the same; then
            it has succeeded.
        """
        result = self.run(call, *words, limit_s=limit_s, stdin=stdin)
        for pause_s in _PAUSES_AFTER_CRASHES_S:
            if result.code not in _CRASHED:
                break
            LOG.warning("%s crashed with exit code %s, trying again", words, result.code)
            call.pause(pause_s)
            if done is not None and done():
                return Result(0, result.out, result.err)
            result = self.run(call, *words, limit_s=limit_s, stdin=stdin)
        return result

    # -- reporting ----------------------------------------------------------------------------
    def groups(self, call: Call, group: str | None = None) -> list[VolumeGroup]:
        """Return a volume group, or all.

        :raises ProcessExecutionError: LVM could not tell; also if there is no such group.
        """
        words = [check_name(group, "volume group")] if group is not None else []
        return lvm_reports.parse_groups(
            self._report(call, "vgs", lvm_reports.GROUP_COLUMNS, "--readonly", *words)
        )

    def find_groups(self, call: Call, group: str) -> list[VolumeGroup]:
        """Return all groups of a name: none, one, or (by a mistake that LVM refuses) several.

        :raises ProcessExecutionError: LVM could not tell.
        """
        result = self._run_report(call, "vgs", lvm_reports.GROUP_COLUMNS, "--readonly", group)
        if result.code == 0:
            found = lvm_reports.parse_groups(result.out)
            return [one for one in found if one.name == group]
        # No trust in the words of an error: asked for groups of this name, LVM answers with an
        # empty list if there is none.
        named = self._run_report(
            call, "vgs", lvm_reports.GROUP_COLUMNS, "--readonly", "-S", f'vg_name="{group}"'
        )
        if named.code != 0:
            result.check()
        return lvm_reports.parse_groups(named.out)

    def volumes(
        self, call: Call, group: str | None = None, *, readonly: bool = True
    ) -> list[LogicalVolume]:
        """Return the volumes of a group, or of all.

        :param readonly: False to learn how full pools are.
        :raises ProcessExecutionError: LVM could not tell; also if there is no such group.
        """
        words = [check_name(group, "volume group")] if group is not None else []
        return self._volumes(call, *(["--readonly"] if readonly else []), *words)

    def find_volumes(
        self, call: Call, group: str, *names: str, readonly: bool = True
    ) -> list[LogicalVolume]:
        """Return those of the named volumes that are there; a missing one is no error.

        :raises ProcessExecutionError: LVM could not tell; also if there is no such group.
        """
        selection = " || ".join(f'lv_name="{check_name(name, "volume")}"' for name in names)
        words = ("--readonly",) if readonly else ()
        found = self._volumes(
            call, *words, *_EPOCH, "-S", selection, check_name(group, "volume group")
        )
        return [one for one in found if one.name in names]

    def find_volume(self, call: Call, group: str, name: str) -> LogicalVolume | None:
        """Return a volume; None if it is not there.

        :raises ProcessExecutionError: LVM could not tell; also if there is no such group.
        """
        return next(iter(self.find_volumes(call, group, name)), None)

    def disks(self, call: Call) -> list[PhysicalVolume]:
        """Return the disks of all groups.

        :raises ProcessExecutionError: LVM could not tell.
        """
        return lvm_reports.parse_disks(self._report(call, "pvs", lvm_reports.DISK_COLUMNS))

    def version(self, call: Call) -> tuple[int, int, int]:
        """Return LVM's version.

        :raises BrickException: it cannot be read from what LVM says.
        """
        result = self.run(call, *self.prefix, "vgs", "--version", limit_s=_REPORT_LIMIT_S)
        return lvm_reports.parse_version(result.check().out)

    def _volumes(self, call: Call, *words: str) -> list[LogicalVolume]:
        return lvm_reports.parse_volumes(
            self._report(call, "lvs", lvm_reports.VOLUME_COLUMNS, *words)
        )

    def _report(self, call: Call, program: str, columns: str, *words: str) -> str:
        return self._run_report(call, program, columns, *words).check().out

    def _run_report(self, call: Call, program: str, columns: str, *words: str) -> Result:
        return self.run_patiently(
            call, *self.prefix, program, *_JSON, "-o", columns, *words, limit_s=_REPORT_LIMIT_S
        )


class Making:
    """Tells whether a volume was made since this object was.

    For commands that failed and may have done their work all the same: what was there before must
    never be taken for it.
    """

    def __init__(self, tools: Tools, call: Call, group: str, name: str) -> None:
        self._tools, self._call = tools, call
        self._group, self._name = group, name
        self._began = int(time.time())  # LVM writes whole seconds of the same clock

    def made(self) -> LogicalVolume | None:
        """Return the volume if it is there and was not before."""
        found = self._tools.find_volume(self._call, self._group, self._name)
        return found if found is not None and self.is_new(found) else None

    def is_new(self, volume: LogicalVolume) -> bool:
        """Tell whether a volume, as :meth:`Tools.find_volume` returns it, was not there before."""
        return volume.made_at is not None and volume.made_at >= self._began
