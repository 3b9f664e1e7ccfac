# SPDX-License-Identifier: Apache-2.0
"""What the tests of LVM have in common."""

from __future__ import annotations

from typing import Any

from os_brick.local_dev.lvm import LVM
from os_brick.testing import FakeHost
from os_brick.testing.lvm_programs import LvmPrograms
from os_brick.testing.process import Answer, Process

ENV = ("env", "LC_ALL=C")
_CHANGES = {"vgcreate", "lvcreate", "lvchange", "lvextend", "lvremove", "lvrename", "lvconvert"}


def make_lvm(host: FakeHost, name: str = "vg", **keywords: Any) -> LVM:
    """Return the library's view of a group of a fake host."""
    return LVM(name, "sudo", host=host.host, **keywords)


def thin_lvm(host: FakeHost) -> LVM:
    """Return the view of a new group with a thin pool; its commands are forgotten."""
    host.lvm.group()
    made = make_lvm(host, lvm_type="thin")
    host.forget()
    return made


def changes(host: FakeHost) -> list[tuple[str, ...]]:
    """Return the commands that were to change something, in order."""
    return [words for words in host.started if _CHANGES & set(words)]


def reports(host: FakeHost) -> list[tuple[str, ...]]:
    """Return the commands that asked LVM something, in order."""
    return [words for words in host.started if {"vgs", "lvs", "pvs"} & set(words)]


def crash_when_done(host: FakeHost, name: str, *, times: int = 1, code: int = 139) -> None:
    """Have a program do its work and then die."""
    program = LvmPrograms(host.lvm, host.programs.call).programs()[name]
    left = [times]

    def dying(process: Process) -> Answer:
        answer = program(process)
        left[0] -= 1
        return Answer(code) if left[0] >= 0 else answer

    host.programs.install(name, dying)
