# SPDX-License-Identifier: Apache-2.0
"""Make a fresh Debian or Ubuntu ready for the lab: packages, a kernel, a Python environment."""

from __future__ import annotations

import glob
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterable

from . import initramfs
from .settings import LabError, Settings

#: Program that must be there -> Debian package that brings it.
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "iscsiadm": "open-iscsi",
    "multipathd": "multipath-tools",
    "sg_inq": "sg3-utils",
    "lsscsi": "lsscsi",
    "nvme": "nvme-cli",
    "mdadm": "mdadm",
    "depmod": "kmod",
    "ip": "iproute2",
    "iptables-legacy": "iptables",
    "udevadm": "udev",
    "sudo": "sudo",
    "dmsetup": "dmsetup",
    "lvs": "lvm2",
    "thin_check": "thin-provisioning-tools",
    "cryptsetup": "cryptsetup-bin",
    "zstd": "zstd",
    "mkfs.ext4": "e2fsprogs",
    "setsid": "util-linux",
}
#: The same for the scenarios of one protocol, which only they need: they are large.
MORE_PACKAGES = {
    "rbd": {
        "ceph-mon": "ceph-mon",
        "ceph-osd": "ceph-osd",
        "rbd": "ceph-common",
        # for the distribution's own Python, which the library's environment has to be one of
        "import rbd": "python3-rbd",
        "import rados": "python3-rados",
    },
    "nfs": {"rpc.nfsd": "nfs-kernel-server", "mount.nfs": "nfs-common"},
}
#: The distribution's full kernel: the cloud flavour lacks Fibre Channel.
KERNEL_PACKAGE = "linux-image-amd64"
#: Ubuntu names its full kernel so, and keeps half of the drivers in a second package.
KERNEL_PACKAGE_UBUNTU = "linux-image-generic"
#: What the library needs at run time, as long as there is no requirements.txt to ask.
RUN_TIME = (
    "oslo.concurrency",
    "oslo.config",
    "oslo.context",
    "oslo.i18n",
    "oslo.log",
    "oslo.privsep",
    "oslo.serialization",
    "oslo.utils",
    "retrying",
    "six",
    "tenacity",
)


def say(text: str) -> None:
    """Show one line of progress."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def packages(protocols: Iterable[str]) -> None:
    """Install the Debian packages that are missing; asks for root rights only then.

    :param protocols: those whose own packages are needed too.
    """
    wanted = dict(PACKAGES)
    for protocol in protocols:
        wanted |= MORE_PACKAGES[protocol]
    missing = sorted({pkg for program, pkg in wanted.items() if not _is_there(program)})
    missing += [] if _has_venv() else ["python3-venv"]
    if not missing:
        return
    say("installing " + " ".join(missing))
    _root("apt-get", "update", "-qq")
    _root("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
    still = sorted(program for program in wanted if not _is_there(program))
    if still:
        raise LabError(f"these programs are still missing after the install: {', '.join(still)}")


def kernel(settings: Settings) -> tuple[pathlib.Path, str, pathlib.Path]:
    """Return (unpacked kernel package, release, initramfs); fetch and build what is missing.

    The package is unpacked into the lab's cache and never installed: the host's own kernels
    and boot loader stay as they are.
    """
    unpacked = _unpacked_kernel(settings)
    release = next(iter(sorted(path.name for path in (unpacked / "lib/modules").iterdir())))
    if not (unpacked / "lib/modules" / release / "modules.dep.bin").exists():
        _run("depmod", "-b", str(unpacked), release)
    recipe = hashlib.sha256(pathlib.Path(initramfs.__file__).read_bytes()).hexdigest()[:12]
    image = settings.cache / f"initramfs-{release}-{recipe}.cpio"
    if not image.exists():
        busybox = _which("busybox")
        if busybox is None:
            raise LabError("busybox is missing")
        initramfs.build(unpacked, release, busybox, image)
    return unpacked, release, image


def environment(settings: Settings) -> None:
    """Make ``.venv`` with what the library needs at run time, compiled to bytecode."""
    python = settings.venv / "bin/python"
    if not python.exists():
        say(f"making {settings.venv}")
        _run(sys.executable, "-m", "venv", str(settings.venv))
    wanted = settings.repo / "requirements.txt"
    names = ["-r", str(wanted)] if wanted.exists() else list(RUN_TIME)
    stamp = settings.venv / "lab-stamp"
    content = wanted.read_text() if wanted.exists() else "\n".join(RUN_TIME)
    if not stamp.exists() or stamp.read_text() != content:
        if not _imports(python):
            say("installing the library's run-time packages")
            pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            _run(*pip, *names)
        stamp.write_text(content)
    compile_bytes(settings)


def compile_bytes(settings: Settings) -> None:
    """Byte-compile library and environment: compiling under emulation takes minutes."""
    python = str(settings.venv / "bin/python")
    places = glob.glob(str(settings.venv / "lib/python3*/site-packages"))
    places.append(str(settings.repo / "os_brick"))
    for place in places:
        # A package may carry a file for other Python versions: not compiled, not needed.
        subprocess.run(
            [python, "-m", "compileall", "-q", "-j", "0", place],
            check=False,
            capture_output=True,
            timeout=300,
        )


def _unpacked_kernel(settings: Settings) -> pathlib.Path:
    have = sorted(settings.cache.glob("kernel-*/lib/modules/*"))
    if have:
        return have[-1].parents[2]
    names = _kernel_packages()
    say("fetching " + " ".join(names))
    fetch = settings.cache / "fetch"
    shutil.rmtree(fetch, ignore_errors=True)
    fetch.mkdir(parents=True)
    _run("apt-get", "download", "-qq", *names, folder=fetch)
    partial = settings.cache / "kernel.new"
    shutil.rmtree(partial, ignore_errors=True)
    for package in sorted(fetch.glob("*.deb")):
        _run("dpkg", "-x", str(package), str(partial))
    _one_root(partial)
    whole = settings.cache / f"kernel-{names[0]}"
    partial.rename(whole)
    shutil.rmtree(fetch)
    return whole


def _one_root(unpacked: pathlib.Path) -> None:
    """Newer packages put modules below /usr/lib: bring both layouts to one."""
    if not (unpacked / "lib").exists():
        (unpacked / "usr/lib").rename(unpacked / "lib")


def _kernel_packages() -> list[str]:
    """Return the packages of the newest full kernel, those with its modules included."""
    known = _output("apt-cache", "search", "--names-only", "^linux-image-(amd64|generic)$")
    if not known.strip():
        _root("apt-get", "update", "-qq")
        known = _output("apt-cache", "search", "--names-only", "^linux-image-(amd64|generic)$")
    meta = KERNEL_PACKAGE if f"{KERNEL_PACKAGE} " in known else KERNEL_PACKAGE_UBUNTU
    depends = _output("apt-cache", "depends", meta)
    words = [line.split()[-1] for line in depends.splitlines() if "Depends:" in line]
    image = next((word for word in words if word.startswith("linux-image-")), None)
    if image is None:
        raise LabError(f"the package {meta} names no kernel: run 'apt-get update' and look")
    if meta == KERNEL_PACKAGE:
        return [image]
    tail = image.removeprefix("linux-image-")
    return [image, f"linux-modules-{tail}", f"linux-modules-extra-{tail}"]


def kernel_image(unpacked: pathlib.Path) -> pathlib.Path:
    """Return the compressed kernel in an unpacked package."""
    return next(iter(sorted((unpacked / "boot").glob("vmlinuz-*"))))


def _imports(python: pathlib.Path) -> bool:
    names = ", ".join(name.replace("oslo.", "oslo_") for name in RUN_TIME)
    done = subprocess.run(
        [str(python), "-c", f"import {names}"], capture_output=True, check=False, timeout=120
    )
    return done.returncode == 0


def _has_venv() -> bool:
    try:
        import ensurepip  # noqa: F401 - Debian takes it out into a package
        import venv  # noqa: F401
    except ImportError:
        return False
    return True


def _is_there(program: str) -> bool:
    """Whether a program, or the module of ``import MODULE``, is installed."""
    _import, module, name = program.partition("import ")
    if module:
        return bool(glob.glob(f"/usr/lib/python3/dist-packages/{name}.*"))
    return _which(program) is not None


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _root(*command: str) -> None:
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    _run(*prefix, "env", "DEBIAN_FRONTEND=noninteractive", *command)


def _run(*command: str, folder: pathlib.Path | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1200,
        text=True,
    )
    if done.returncode:
        raise LabError(_failed(command, done.stdout))


def _output(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise LabError(_failed(command, done.stderr))
    return done.stdout


def _failed(command: Iterable[str], output: str) -> str:
    return f"this failed: {' '.join(command)}\n{output[-2000:]}"
