# SPDX-License-Identifier: Apache-2.0
"""The package as services meet it: what importing it does, and what it asks of rootwrap."""

import configparser
import json
import pathlib
import re
import subprocess
import sys

import pytest

import os_brick

ROOT = pathlib.Path(os_brick.__file__).resolve().parent.parent
FILTERS = ROOT / "etc/os-brick/rootwrap.d/os-brick.filters"

# Runs in an interpreter of its own, imports the module named, and tells what that did.
PROBE = """
import importlib, json, os, signal, socket, subprocess, sys, threading, time

WATCHED = ("subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn",
           "os.spawn", "socket.connect", "socket.bind", "os.putenv", "os.mkdir", "os.remove")
SYSTEM = (os, signal, socket, subprocess, threading, time)

def names():
    return {f"{m.__name__}.{k}": id(v) for m in SYSTEM for k, v in vars(m).items()
            if callable(v)}

events = []
sys.addaudithook(lambda event, args: events.append(event) if event in WATCHED else None)
sys.dont_write_bytecode = True
before = names()
importlib.import_module(sys.argv[1])
after = names()
print(json.dumps({
    "events": events,
    "patched": sorted(k for k in before if before[k] != after.get(k)),
    "threads": [thread.name for thread in threading.enumerate()],
    "modules": sorted(sys.modules),
}))
"""


def import_alone(module: str) -> dict[str, list[str]]:
    """What importing ``module`` does in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, module],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    result: dict[str, list[str]] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def front_door() -> dict[str, list[str]]:
    return import_alone("os_brick.initiator.connector")


def test_importing_the_front_door_starts_nothing(front_door: dict[str, list[str]]) -> None:
    assert front_door["events"] == []
    assert front_door["threads"] == ["MainThread"]


def test_importing_the_front_door_patches_nothing(front_door: dict[str, list[str]]) -> None:
    assert front_door["patched"] == []


@pytest.mark.parametrize("package", ["requests", "pbr", "rbd", "rados", "hypothesis", "pytest"])
def test_importing_the_front_door_does_not_load(
    front_door: dict[str, list[str]], package: str
) -> None:
    loaded = [m for m in front_door["modules"] if m == package or m.startswith(package + ".")]
    assert loaded == []


def test_importing_the_front_door_loads_no_vendor(front_door: dict[str, list[str]]) -> None:
    vendors = r"os_brick\..*\b(gpfs|huawei|lightos|scaleio|storpool\w*|vmware)$"
    assert [m for m in front_door["modules"] if re.match(vendors, m)] == []


def test_the_library_loads_no_test_code(front_door: dict[str, list[str]]) -> None:
    assert [m for m in front_door["modules"] if re.match(r"os_brick\.(tests|testing)\b", m)] == []


def admits(command: list[str]) -> bool:
    """Whether rootwrap would start ``command``, by oslo.rootwrap's rule for a RegExpFilter."""
    parser = configparser.RawConfigParser()
    parser.read(FILTERS, encoding="utf-8")
    for _name, rule in parser.items("Filters"):
        kind, program, user, *patterns = re.split(r"\s*,\s*", rule)
        assert (kind, program, user) == ("RegExpFilter", "privsep-helper", "root")
        if len(patterns) == len(command) and all(
            re.match(pattern + "$", word) for pattern, word in zip(patterns, command, strict=True)
        ):
            return True
    return False


def helper(
    config: str = "/etc/nova/nova.conf",
    context: str = "os_brick.privileged.default",
    socket: str = "/tmp/tmpx1/privsep.sock",
) -> list[str]:
    """The command that oslo.privsep starts the helper with."""
    words = ["privsep-helper", "--config-file", config]
    return [*words, "--privsep_context", context, "--privsep_sock_path", socket]


def test_rootwrap_admits_the_helper() -> None:
    assert admits(helper())


@pytest.mark.parametrize(
    "command",
    [
        helper(config="/home/mallory/nova.conf"),
        helper(config="/etc/../home/mallory/nova.conf"),
        helper(context="os_brick.privileged.brick_privsep_hide_output"),
        helper(context="mallory.privileged.default"),
        helper(socket="/run/privsep.sock"),
        [*helper(), "--debug"],
        ["sh", *helper()[1:]],
        ["iscsiadm"],
    ],
)
def test_rootwrap_admits_nothing_else(command: list[str]) -> None:
    assert not admits(command)
