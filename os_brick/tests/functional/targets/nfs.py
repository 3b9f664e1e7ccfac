# SPDX-License-Identifier: Apache-2.0
"""The kernel's NFS server, version 4 only, without rpcbind and without an init system.

Its root is a folder in memory; each share is a folder below it, reached at any address of the
loopback interface. Sources: nfsd(7), rpc.nfsd(8), exportfs(8).
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess

from ..guest import daemons, kernel

ROOT = pathlib.Path("/run/lab-nfs")
_NFSD = pathlib.Path("/proc/fs/nfsd")
_OPTIONS = "rw,insecure,no_root_squash,no_subtree_check,async"
_THREADS = "4"


class Share:
    """One folder of the server."""

    def __init__(self, name: str, address: str = "127.0.0.2") -> None:
        self.name = name
        self.address = address
        self.folder = ROOT / name
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o777)

    @property
    def export(self) -> str:
        """What clients mount."""
        return f"{self.address}:/{self.name}"

    @property
    def portal(self) -> str:
        """Address and port of the server, for faults of the network."""
        return f"{self.address}:2049"

    def file(self, name: str, size: int) -> pathlib.Path:
        """Make a volume's file; returns where it is on the server."""
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(size)
        path.chmod(0o666)
        return path

    def properties(self, name: str, **more: object) -> dict[str, object]:
        """Return connection properties of a volume as Cinder gives them."""
        return {"export": self.export, "name": name, "options": None, "format": "raw", **more}


def up(versions: tuple[str, ...] = ("4.1", "4.2")) -> None:
    """Start the server, or start it anew with other versions."""
    ROOT.mkdir(exist_ok=True)
    kernel.load("nfsd")
    if not (_NFSD / "threads").exists():
        kernel.run("mount", "-t", "nfsd", "nfsd", str(_NFSD))
    pathlib.Path("/var/lib/nfs/v4recovery").mkdir(parents=True, exist_ok=True)
    for name in ("etab", "rmtab"):
        pathlib.Path("/var/lib/nfs", name).touch()
    if not _mountd_runs():
        kernel.run("rpc.mountd", "-N", "2", "-N", "3")
        daemons.outlive_the_scenario("rpc.mountd")
    export()
    speaks = {word for word in kernel.read(_NFSD / "versions").split() if word[0] == "+"}
    if kernel.read(_NFSD / "threads") != "0":
        if {f"+{one}" for one in versions} == {one for one in speaks if "." in one}:
            return
        stop()
    for name in ("nfsv4leasetime", "nfsv4gracetime"):
        kernel.write(_NFSD / name, "10")  # less is refused
    left_out = [one for one in ("4.0", "4.1", "4.2") if one not in versions]
    words = [word for one in left_out for word in ("-N", one)]
    words += [word for one in versions for word in ("-V", one)]
    kernel.run("rpc.nfsd", "-N", "3", *words, _THREADS)


def _mountd_runs() -> bool:
    return "rpc.mountd" in kernel.run("ps", "-eo", "comm")


def export() -> None:
    """Export the root, and with it all shares."""
    kernel.run("exportfs", "-o", f"{_OPTIONS},fsid=0", f"*:{ROOT}")


def unexport() -> None:
    """Take the export away from clients that have mounted it, too."""
    kernel.run("exportfs", "-u", f"*:{ROOT}")
    kernel.run("exportfs", "-f")


def stop() -> None:
    """Stop the server: nothing listens any more."""
    kernel.run("rpc.nfsd", "0")


def clean() -> None:
    """Unmount what is mounted of it, by force, and remove all shares."""
    for line in kernel.read("/proc/self/mounts").splitlines():
        words = line.split()
        if words[2].startswith("nfs") and not words[2].startswith("nfsd"):
            subprocess.run(["umount", "-f", "-l", words[1]], check=False, timeout=60)
    if not ROOT.exists():
        return
    with contextlib.suppress(AssertionError):
        export()
    for folder in ROOT.iterdir():
        shutil.rmtree(folder, ignore_errors=True)
