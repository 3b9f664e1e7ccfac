# SPDX-License-Identifier: Apache-2.0
"""The QEMU process: its command line, its start, its end, and whether KVM works here."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import time

from .settings import LabError, Settings

#: Quiet and fast under emulation; nothing here changes what storage does.
KERNEL_ARGUMENTS = (
    "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off nokaslr tsc=reliable no_timer_check"
    " cryptomgr.notests audit=0 apparmor=0 net.ifnames=0 printk.time=1"
)
#: A stock kernel that boots at all under KVM prints its first line within a second or two.
PROBE_LIMIT_S = 20


def accelerator(settings: Settings, kernel: pathlib.Path, initramfs: pathlib.Path) -> str:
    """Return ``"kvm"`` if a stock kernel boots under it here, else ``"tcg"``.

    The answer of the short trial boot is kept beside the kernel.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    answer = settings.cache / f"accelerator-{kernel.name}"
    if answer.exists():
        return answer.read_text().strip()
    log = settings.cache / "probe.log"
    command = [*_base("kvm", settings), "-chardev", f"file,id=con,path={log}"]
    command += ["-serial", "chardev:con", "-kernel", str(kernel), "-initrd", str(initramfs)]
    command += ["-append", f"{KERNEL_ARGUMENTS} lab.probe"]
    log.write_text("")
    limit = ["timeout", "-k", "2", str(PROBE_LIMIT_S)]
    subprocess.run([*limit, *command], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    found = "kvm" if "lab-probe-ok" in log.read_text(errors="replace") else "tcg"
    answer.write_text(found + "\n")
    return found


def start(
    settings: Settings, kernel: pathlib.Path, initramfs: pathlib.Path, accel: str
) -> subprocess.Popen[bytes]:
    """Start the machine; ``timeout`` ends it when its life is over, come what may."""
    machine = settings.machine
    for name in ("control.sock", "console.log"):
        (machine / name).unlink(missing_ok=True)
    command = [*_base(accel, settings), "-kernel", str(kernel), "-initrd", str(initramfs)]
    command += ["-append", KERNEL_ARGUMENTS]
    command += ["-chardev", f"file,id=con,path={machine / 'console.log'}", "-serial", "chardev:con"]
    socket = machine / "control.sock"
    command += ["-chardev", f"socket,id=ctl,path={socket},server=on,wait=off"]
    command += ["-serial", "chardev:ctl"]
    command += _share("host", pathlib.Path("/"), "readonly=on,multidevs=remap,")
    command += _share("lab", settings.share, "")
    command += _fabric()
    log = (machine / "qemu.log").open("wb")
    process = subprocess.Popen(
        ["timeout", "-k", "5", str(settings.lifetime_s), *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    log.close()
    (machine / "pid").write_text(f"{process.pid}\n")
    return process


def running_pid(settings: Settings) -> int | None:
    """Return the pid of this checkout's machine (its watchdog), or None if it is not up."""
    try:
        pid = int((settings.machine / "pid").read_text())
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    mine = str(settings.machine).encode()
    if state == "Z" or not any(mine in word for word in words):
        return None
    return pid


def stop(settings: Settings) -> bool:
    """End the machine; False if there was none."""
    pid = running_pid(settings)
    if pid is None:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            # The watchdog leads a session of its own: the group is it and its QEMU.
            os.killpg(pid, number)
        except ProcessLookupError:
            break
        if _gone_within(settings, 10.0):
            break
    (settings.machine / "pid").unlink(missing_ok=True)
    return True


def threads(settings: Settings) -> list[str]:
    """Return a line for each thread of the machine's QEMU: what it waits for, and whether it ran
    in the last second; the guest's processors are among them."""
    before = _times(settings)
    time.sleep(1.0)
    return [
        f"qemu {name}: {state}, {ticks - before.get(task, ('', '', 0))[2]} ticks in a second"
        for task, (name, state, ticks) in _times(settings).items()
    ]


def _times(settings: Settings) -> dict[str, tuple[str, str, int]]:
    """Return name, what it waits for, and processor time in ticks, of each thread of QEMU."""
    found = {}
    for child in pathlib.Path("/proc").glob("[0-9]*/task/[0-9]*"):
        try:
            words = (child.parent.parent / "cmdline").read_bytes()
            name, _, rest = (child / "stat").read_text().partition("(")[2].rpartition(")")
            wait = (child / "wchan").read_text()
        except OSError:
            continue  # It has ended meanwhile.
        if words.startswith(b"timeout") or str(settings.machine).encode() not in words:
            continue
        fields = rest.split()
        found[child.name] = (name, f"{fields[0]} {wait}", int(fields[11]) + int(fields[12]))
    return found


def was_stopped(settings: Settings) -> bool:
    """Whether the last machine was ended by ``stop``, not by itself or its watchdog."""
    return not (settings.machine / "pid").exists()


def _gone_within(settings: Settings, limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if running_pid(settings) is None:
            return True
        time.sleep(0.05)
    return False


def _base(accel: str, settings: Settings) -> list[str]:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise LabError("qemu-system-x86_64 is missing: run 'tools/lab up' once with root rights")
    cpu = "host" if accel == "kvm" else "Nehalem"
    how = "kvm" if accel == "kvm" else "tcg,thread=multi"
    command = [qemu, "-M", "q35", "-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-no-reboot", "-cpu", cpu, "-accel", how, "-smp", str(settings.cpus)]
    return [*command, "-m", str(settings.memory_mib), "-device", "virtio-rng-pci"]


def _share(tag: str, folder: pathlib.Path, options: str) -> list[str]:
    text = f"local,path={folder},mount_tag={tag},security_model=none,{options}id={tag}"
    return ["-virtfs", text]


def _fabric() -> list[str]:
    """Four NICs on one hub that leads nowhere: Fibre Channel over Ethernet needs PCI NICs."""
    command = []
    for number in range(4):
        name, mac = f"port{number}", f"52:54:00:00:0f:0{number}"
        command += ["-netdev", f"hubport,id={name},hubid=0"]
        command += ["-device", f"e1000e,netdev={name},mac={mac},romfile="]
    return command
