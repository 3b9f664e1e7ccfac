# SPDX-License-Identifier: Apache-2.0
"""The first root file system of the machine: busybox, a few modules and one script.

It mounts the host's root read-only by 9p, lays an overlay of memory over it, and starts the
second script from there.  Written without cpio or initramfs-tools, so that the host's own
boot files are never touched.
"""

from __future__ import annotations

import gzip
import lzma
import os
import pathlib
import shutil
import subprocess

#: What the first script needs; their dependencies are added.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")

FIRST_SCRIPT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for m in $($b cat /modules/order); do $b insmod /modules/$m; done
case "$($b cat /proc/cmdline)" in *lab.probe*)
    echo lab-probe-ok >/dev/console
    $b poweroff -f;;
esac
o=trans=virtio,version=9p2000.L,msize=524288
$b mount -t 9p -o ro,$o,cache=loose host /lower || $b poweroff -f
$b mount -t tmpfs -o mode=755,size=60% memory /upper
$b mkdir -p /upper/changes /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/changes,workdir=/upper/work \\
    overlay /new || $b poweroff -f
$b mkdir -p /new/lab
$b mount -t 9p -o $o,cache=none lab /new/lab || $b poweroff -f
for d in proc sys dev; do $b mkdir -p /new/$d; $b mount --move /$d /new/$d; done
$b mkdir -p /new/sbin-lab
$b cp /bin/busybox /new/sbin-lab/init
$b cp /inittab /new/etc/inittab
exec $b switch_root /new /sbin-lab/init
"""

INITTAB = """::sysinit:/bin/sh /lab/boot.sh
::respawn:/bin/sh /lab/agent.sh
::ctrlaltdel:/sbin-lab/init poweroff -f
"""


def build(kernel: pathlib.Path, release: str, busybox: str, into: pathlib.Path) -> None:
    """Write the initramfs for the modules of ``release`` under ``kernel`` to ``into``."""
    modules = kernel / "lib/modules" / release
    archive = _Archive()
    for name in ("bin", "dev", "lower", "modules", "new", "proc", "sys", "upper"):
        archive.folder(name)
    archive.file("bin/busybox", pathlib.Path(busybox).read_bytes(), 0o755)
    archive.file("init", FIRST_SCRIPT.encode(), 0o755)
    archive.file("inittab", INITTAB.encode(), 0o644)
    order = []
    for path in _with_dependencies(modules, MODULES):
        name = path.name.split(".ko")[0] + ".ko"
        archive.file(f"modules/{name}", _module(path), 0o644)
        order.append(name)
    archive.file("modules/order", "\n".join(order).encode() + b"\n", 0o644)
    partial = into.with_suffix(".new")
    partial.write_bytes(archive.end())
    partial.replace(into)


def _with_dependencies(modules: pathlib.Path, names: tuple[str, ...]) -> list[pathlib.Path]:
    """Return the files of the named modules, each after those that it needs."""
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        file, _, rest = line.partition(":")
        needs[file] = rest.split()
        by_name[os.path.basename(file).split(".ko")[0].replace("-", "_")] = file
    ordered: list[str] = []
    for name in names:
        file = by_name.get(name.replace("-", "_"), "")
        if not file:
            continue  # Built into the kernel.
        # modules.dep names what is needed nearest first (kmod, depmod(8)).
        for each in [*reversed(needs[file]), file]:
            if each not in ordered:
                ordered.append(each)
    return [modules / each for each in ordered]


def _module(path: pathlib.Path) -> bytes:
    """Return a module's bytes, unpacked: distributions compress them in different ways."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        zstd = shutil.which("zstd") or "zstd"
        return subprocess.run(
            [zstd, "-dc", str(path)], check=True, stdout=subprocess.PIPE, timeout=60
        ).stdout
    return path.read_bytes()


class _Archive:
    """A cpio archive in the "newc" form (kernel: driver-api/early-userspace/buffer-format)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def folder(self, name: str) -> None:
        self._add(name, 0o040755, b"")

    def file(self, name: str, data: bytes, mode: int) -> None:
        self._add(name, 0o100000 | mode, data)

    def end(self) -> bytes:
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, data: bytes) -> None:
        self._inode += 1
        raw = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
        self._parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]
