# SPDX-License-Identifier: Apache-2.0
"""A Ceph cluster, the kernel's RBD driver, and the program ``rbd``.

After rbd(8), the kernel's ``Documentation/ABI/testing/sysfs-bus-rbd``, and what these print.
"""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, field
from typing import Any

from os_brick.testing import block, librbd
from os_brick.testing.block import BlockDevice, Devices
from os_brick.testing.process import Answer, Process
from os_brick.testing.programs import Program
from os_brick.testing.storage import Unit
from os_brick.testing.world import World

_MIB = 1 << 20
_BUS = "bus/rbd/devices"
#: Where configuration files of mapped images lie.
_CONFS = "/run/os-brick/"
#: States of the cluster.
UP, SILENT, REFUSES = "up", "silent", "refuses"


@dataclass(eq=False)
class Image:
    """An image of the cluster."""

    ceph: Ceph = field(repr=False)
    pool: str
    name: str
    namespace: str
    unit: Unit
    content: bytearray
    #: It has features that the kernel cannot do.
    too_new: bool = False

    @property
    def properties(self) -> dict[str, Any]:
        """Connection properties as Cinder gives them."""
        return self.connection()

    def connection(self, **more: Any) -> dict[str, Any]:
        """Return connection properties with some changed; those that are None are left out."""
        found: dict[str, Any] = {
            "name": f"{self.pool}/{self.name}",
            "hosts": [host for host, _port in self.ceph.monitors],
            "ports": [port for _host, port in self.ceph.monitors],
            "cluster_name": "ceph",
            "auth_enabled": True,
            "auth_username": "cinder",
            "secret_type": "ceph",
            "secret_uuid": "3b1f0c6a-9d7e-4512-8d1b-6f1a1c0b2d3e",
            "volume_id": "7d25b81e-4f0c-4a36-9b1e-2f1f5a0c7e11",
            "discard": True,
            "encrypted": False,
            "access_mode": "rw",
            **more,
        }
        return {key: value for key, value in found.items() if value is not None}

    def grow(self, size: int) -> None:
        """Make it larger; the kernel hears of it, the block device's size lags while it is open."""
        self.content.extend(bytes(size - len(self.content)))
        self.unit.size = size
        for mapped in self.ceph.mapped:
            if mapped.image is self:
                self.ceph.show_size(mapped)


@dataclass(eq=False)
class RbdDevice(BlockDevice):
    """An image that the kernel has mapped."""

    image: Image | None = None
    snapshot: str = "-"
    conf: str = ""

    def storage(self) -> tuple[str, Unit | None]:
        if self.image is None:
            return block.FAILS, None
        state = block.ALIVE if self.image.ceph.state == UP else block.HANGS
        return state, self.image.unit


class Ceph:
    """The cluster, and what of it is mapped here."""

    def __init__(self, world: World, devices: Devices) -> None:
        self.world = world
        self._devices = devices
        self.images: list[Image] = []
        self.mapped: list[RbdDevice] = []
        self.monitors: list[tuple[str, str]] = [("10.0.0.9", "6789")]
        self.state = UP
        #: Whether ``rbd`` is on the host.
        self.is_installed = True
        #: Whether udev has Ceph's rules.
        self.has_udev_rules = True
        #: Whether ``rbd showmapped`` answers as before Ceph 13.2.
        self.lists_by_id = False
        #: What the bindings of Python offer: in place of the modules ``rados`` and ``rbd``.
        self.bindings = librbd.Bindings(self)

    def image(
        self,
        name: str = "volume-1",
        *,
        pool: str = "volumes",
        namespace: str = "",
        size: int = _MIB,
    ) -> Image:
        """Make an image."""
        number = len(self.images) + 1
        unit = Unit("", f"{number:032x}", size, vendor="Ceph", model="rbd")
        made = Image(self, pool, name, namespace, unit, bytearray(size))
        self.images.append(made)
        return made

    def find(self, pool: str, name: str, namespace: str = "") -> Image | None:
        """Return an image by its names."""
        wanted = (pool, namespace, name)
        for one in self.images:
            if (one.pool, one.namespace, one.name) == wanted:
                return one
        return None

    def be(self, state: str) -> None:
        """Have the cluster answer (``up``), not answer (``silent``), or refuse."""
        with self.world.lock:
            self.state = state
        self.world.notify()

    # -- the kernel's driver -------------------------------------------------------------------
    def load_driver(self) -> None:
        """Have the driver's bus in sysfs, as after ``modprobe rbd``."""
        os.makedirs(self.world.sys.path(_BUS), exist_ok=True)

    def _monitors(self) -> list[str]:
        return [
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.monitors
        ]

    def map(
        self,
        image: Image,
        *,
        snapshot: str = "-",
        read_only: bool = False,
        monitors: list[str] | None = None,
    ) -> RbdDevice:
        """Map an image, as somebody else may do it by hand.

        :param monitors: those of another cluster (``"10.0.0.1:6789"``), for one of its images.
        """
        self.load_driver()
        taken = {device.number[1] >> 4 for device in self.mapped}
        number = next(number for number in itertools.count() if number not in taken)
        name = f"rbd{number}"
        device = RbdDevice(
            name, (252, number << 4), f"devices/virtual/block/{name}", image.unit.size
        )
        device.image, device.snapshot, device.read_only = image, snapshot, read_only
        self.mapped.append(device)
        directory = f"devices/rbd/{number}"
        files: dict[str, object] = {
            "pool": image.pool,
            "pool_ns": image.namespace,
            "name": image.name,
            "current_snap": snapshot,
            "size": image.unit.size,
            "config_info": f"{','.join(monitors or self._monitors())} name=cinder {image.pool}",
        }
        self.world.sys.directory(directory, files)
        self._devices.add(device, {})
        self.world.sys.link(f"{_BUS}/{number}", directory)
        if self.has_udev_rules:
            self.world.after(self.world.delays.udev_s, lambda: self._show_link(device))
        return device

    def _link(self, device: RbdDevice) -> str:
        image = device.image
        assert image is not None  # noqa: S101 - none is made without
        tail = "" if device.snapshot == "-" else f"@{device.snapshot}"
        parts = ("rbd", image.pool, image.namespace, image.name + tail)
        return "/".join(filter(None, parts))

    def _show_link(self, device: RbdDevice) -> None:
        if not device.gone:
            self.world.dev.link(self._link(device), device.name)

    def unmap(self, device: RbdDevice) -> None:
        """Unmap an image; what is dirty is lost."""
        number = device.name.removeprefix("rbd")
        self.mapped.remove(device)
        self.world.sys.remove(f"{_BUS}/{number}")
        self.world.sys.remove(f"devices/rbd/{number}")
        self._devices.drop(device, "it was unmapped")
        link = self.world.dev.path(self._link(device))
        if os.path.islink(link) and os.path.basename(os.readlink(link)) == device.name:
            self.world.dev.remove(self._link(device))

    def show_size(self, device: RbdDevice) -> None:
        """Have the driver know an image's new size."""
        number = device.name.removeprefix("rbd")
        if device.image is not None:
            self.world.sys.write(f"devices/rbd/{number}/size", device.image.unit.size)

    def inventory(self) -> list[str]:
        """Return configuration files, in words."""
        return [f"file {_CONFS}{name}" for name in self.world.run.names("os-brick")]

    # -- programs ------------------------------------------------------------------------------
    def programs(self) -> dict[str, Program]:
        """Return the programs by name."""
        return {"rbd": self.rbd, "which": self.which, "install": self.install}

    def which(self, process: Process) -> Answer:
        """``which rbd``"""
        return Answer(out="/usr/bin/rbd\n") if self.is_installed else Answer(1)

    def install(self, process: Process) -> Answer:
        """``install -m 0600 /dev/stdin FILE`` below ``/run``."""
        if process.words[1:4] != ("-m", "0600", "/dev/stdin"):
            raise AssertionError(f"install: this fake knows no {process.words[1:4]}")
        self.world.run.write(process.words[-1].removeprefix("/run/"), process.stdin.encode())
        return Answer()

    def rbd(self, process: Process) -> Answer:
        """``rbd map | unmap | showmapped``"""
        verb, words = process.words[1], list(process.words[2:])
        options = {"--pool": "", "--id": "", "--mon_host": "", "--conf": "", "-o": ""}
        flags = {word for word in words if word in ("--read-only", "--format=json")}
        words = [word for word in words if word not in flags]
        while len(words) > 1 and words[-2] in options:
            value, option = words.pop(), words.pop()
            options[option] = value
        conf = options["--conf"]
        if conf.startswith(_CONFS) and not self.world.run.exists(conf.removeprefix("/run/")):
            return Answer(1, err=f"did not load config file {conf}\n")
        if verb == "map" and len(words) == 1:
            return self._map(process, words[0], options, "--read-only" in flags)
        if verb == "unmap" and len(words) == 1:
            return self._unmap(words[0], options["-o"] == "force")
        if verb == "showmapped" and not words and "--format=json" in flags:
            return Answer(out=self._listing())
        raise AssertionError(f"rbd: this fake does not know {process.words}")

    def _map(self, process: Process, spec: str, options: dict[str, str], read_only: bool) -> Answer:
        self.load_driver()
        if self.state == SILENT:
            # The kernel's mount_timeout; then it is told as ETIMEDOUT.
            process.unlocked_spend(60)
            return Answer(110, err="rbd: map failed: (110) Connection timed out\n")
        if self.state == REFUSES:
            return Answer(1, err="rbd: couldn't connect to the cluster!\n")
        name, at, snapshot = spec.partition("@")
        image = self.find(options["--pool"], name)
        if image is None:
            return Answer(2, err="rbd: map failed: (2) No such file or directory\n")
        if image.too_new:
            text = "rbd: sysfs write failed\nRBD image feature set mismatch.\n"
            return Answer(6, err=f"{text}rbd: map failed: (6) No such device or address\n")
        monitors = options["--mon_host"].split(",") if options["--mon_host"] else None
        mapped = self.map(
            image,
            snapshot=snapshot if at else "-",
            read_only=read_only or bool(at),
            monitors=monitors,
        )
        mapped.conf = options["--conf"]
        return Answer(out=f"/dev/{mapped.name}\n")

    def _unmap(self, path: str, force: bool) -> Answer:
        device = self._devices.find(path)
        if not isinstance(device, RbdDevice):
            return Answer(22, err=f"rbd: {path}: not a mapped block device\n")
        if device.openers and not force:
            text = "rbd: sysfs write failed\nrbd: unmap failed: "
            return Answer(16, err=f"{text}(16) Device or resource busy\n")
        self.unmap(device)
        return Answer()

    def _listing(self) -> str:
        entries = [
            {
                "id": device.name.removeprefix("rbd"),
                "pool": device.image.pool,
                "namespace": device.image.namespace,
                "name": device.image.name,
                "snap": device.snapshot,
                "device": f"/dev/{device.name}",
            }
            for device in self.mapped
            if device.image is not None
        ]
        if not self.lists_by_id:
            return json.dumps(entries)
        return json.dumps(
            {
                entry["id"]: {k: v for k, v in entry.items() if k not in ("id", "namespace")}
                for entry in entries
            }
        )
