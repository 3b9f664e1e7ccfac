# SPDX-License-Identifier: Apache-2.0
"""What storage is attached to this host, as the kernel and the tools' files tell it.

The inspector of leftovers.  It shares no code with the library, so that the two cannot be
wrong in the same way.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time

from . import ceph_images, kernel

#: Time after which what is still coming or going has come or gone.
SETTLE_S = 5.0
#: Control group of the process under test and all that it starts.
GROUP = pathlib.Path("/sys/fs/cgroup/scenario")


@dataclasses.dataclass(frozen=True)
class HostState:
    """Everything that attaching a volume can leave behind, each as one line of text."""

    items: frozenset[str]

    def more_than(self, before: HostState) -> list[str]:
        """Return what is here and was not there before: the leftovers."""
        return sorted(self.items - before.items)

    def less_than(self, before: HostState) -> list[str]:
        """Return what was there before and is not here: what others lost."""
        return sorted(before.items - self.items)


def enter_group() -> None:
    """Put this process into the group whose programs count."""
    GROUP.mkdir(exist_ok=True)
    kernel.write(GROUP / "cgroup.procs", str(os.getpid()))


def look(*, ask_multipathd: bool = True) -> HostState:
    """Return the host's state now."""
    found: set[str] = set()
    for part in (_sessions, _records, _disks, _maps, _links, _mounts, _secret_files, _programs):
        found |= set(part())
    if ask_multipathd:
        found |= set(_monitored())
    return HostState(frozenset(found))


def leftovers(before: HostState, *, ask_multipathd: bool = True) -> list[str]:
    """Return what is left over, compared with ``before``, at once and after a settling time.

    A line says when it was seen, and what it is; also what was there before and is not now.
    Links in /dev/disk are udev's, who works on its own time, and a path without a map is known to
    multipathd until udev tells it: these count after the settling.
    """
    later = ("left at once: link /dev/disk/", "left at once: multipathd orphan ")
    found = [
        line
        for line in _difference(before, "at once", ask_multipathd)
        if not line.startswith(later)
    ]
    time.sleep(SETTLE_S)
    return found + _difference(before, f"after {SETTLE_S:.0f} s", ask_multipathd)


def _difference(before: HostState, when: str, ask_multipathd: bool) -> list[str]:
    now = look(ask_multipathd=ask_multipathd)
    return [f"left {when}: {item}" for item in now.more_than(before)] + [
        f"lost {when}: {item}" for item in now.less_than(before)
    ]


def sessions(iqn: str = "") -> list[str]:
    """Return the iSCSI sessions as ``sid portal iqn``, of one target if ``iqn`` is given."""
    found = [line.removeprefix("session ") for line in _sessions()]
    return [line for line in found if not iqn or line.split()[2] == iqn]


def disks(wwid: str = "") -> list[str]:
    """Return the SCSI disks' kernel names, those with one identity if ``wwid`` is given."""
    found = [name for name in kernel.names("/sys/block") if name.startswith("sd")]
    naa = f"naa.{wwid[1:]}"
    return [
        name for name in found if not wwid or kernel.read(f"/sys/block/{name}/device/wwid") == naa
    ]


def map_of(wwid: str) -> str | None:
    """Return the kernel name (``dm-0``) of the multipath map with this identity."""
    for name in kernel.names("/sys/block"):
        if kernel.read(f"/sys/block/{name}/dm/uuid") == f"mpath-{wwid}":
            return name
    return None


def paths_of(dm: str) -> list[str]:
    """Return the kernel names of the paths of a map."""
    return kernel.names(f"/sys/block/{dm}/slaves")


def records(iqn: str = "") -> list[str]:
    """Return the node records, those of one target if ``iqn`` is given."""
    return [line for line in _records() if line.startswith("node record ") and iqn in line]


def queueing(dm: str) -> bool:
    """Whether a map queues while it has no path (features of its table)."""
    name = kernel.read(f"/sys/block/{dm}/dm/name")
    return "queue_if_no_path" in kernel.run("dmsetup", "table", name, check=False)


def report() -> str:
    """Return the host's state as text for a failed scenario."""
    state = sorted(look(ask_multipathd=False).items)
    lines = [line for line in state if not line.startswith(("mount ", "link ", "device file "))]
    lines.append(" ".join(line.split()[-1] for line in state if line.startswith("link ")))
    commands = (
        ["multipathd", "show", "maps", "topology"],
        ["dmsetup", "table"],
        ["ps", "-eo", "pid,ppid,stat,wchan:20,args", "--no-headers"],
    )
    for command in commands:
        lines.append("$ " + " ".join(command))
        try:
            text = kernel.run(*command, check=False, limit_s=20)
        except AssertionError as error:
            text = str(error)
        lines += [line for line in text.splitlines() if not _usual(line)]
    lines.append(stacks())
    lines.append("$ dmesg | tail")
    lines += kernel.run("dmesg", check=False).splitlines()[-12:]
    return "\n".join(lines)


def stacks() -> str:
    """Return where in the kernel every thread is that sleeps uninterruptibly."""
    found = ["threads that do not answer signals:"]
    for state in pathlib.Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        # "PID (NAME) STATE ...", and the name may hold anything.
        name, _, rest = kernel.read(state).rpartition(")")
        if rest.split()[:1] == ["D"]:
            calls = [line.split()[-1] for line in kernel.read(state.parent / "stack").splitlines()]
            found.append(f"{name}): {' < '.join(calls)}")
    return "\n".join(found)


def _usual(line: str) -> bool:
    """Whether a line of ``ps`` tells of a process that is always there."""
    return any(word in line for word in ("]", "udev", "/lab/", "ps -eo", " init", "functional.run"))


def _sessions() -> list[str]:
    found = []
    for session in kernel.names("/sys/class/iscsi_session"):
        sid = session.removeprefix("session")
        iqn = kernel.read(f"/sys/class/iscsi_session/{session}/targetname", "?")
        connection = f"/sys/class/iscsi_connection/connection{sid}:0"
        address = kernel.read(f"{connection}/persistent_address", "?")
        port = kernel.read(f"{connection}/persistent_port", "?")
        found.append(f"session {sid} {address}:{port} {iqn}")
    return found


def _records() -> list[str]:
    found = []
    for place in ("/etc/iscsi", "/var/lib/iscsi"):
        for kind, name in (("node", "nodes"), ("discovery", "send_targets")):
            root = pathlib.Path(place, name)
            for path in sorted(root.rglob("*")):
                # Locks are files of the database itself; an empty folder of a target is a record's
                # remains, which iscsiadm takes away with the record.
                if path.name != "lock":
                    found.append(f"{kind} record {path.relative_to(root)}")
    return found


def _disks() -> list[str]:
    found = []
    for name in kernel.names("/sys/block"):
        if name.startswith(("sd", "nvme", "rbd")):
            where = os.path.basename(os.path.realpath(f"/sys/block/{name}/device"))
            found.append(f"disk {name} {where} {kernel.read(f'/sys/block/{name}/device/wwid')}")
    found += [f"scsi device {name}" for name in kernel.names("/sys/class/scsi_device")]
    found += [f"nvme controller {name}" for name in kernel.names("/sys/class/nvme")]
    found += [f"array {name}" for name in kernel.names("/sys/block") if name.startswith("md")]
    found += [f"link /dev/md/{name}" for name in kernel.names("/dev/md")]
    found += [
        f"device file /dev/{name}"
        for name in kernel.names("/dev")
        if name.startswith(("sd", "dm-", "rbd", "md"))
        or (name.startswith("nvme") and "n" in name[4:])
    ]
    return found


def _maps() -> list[str]:
    found = []
    for name in kernel.names("/sys/block"):
        if name.startswith("dm-"):
            dm = f"/sys/block/{name}/dm"
            found.append(f"map {name} {kernel.read(f'{dm}/name')} {kernel.read(f'{dm}/uuid')}")
    return found


def _links() -> list[str]:
    found = []
    for folder, _, files in os.walk("/dev/disk"):
        found += [f"link {folder}/{file}" for file in files]
        found += [
            f"link {folder}/{name}"
            for name in kernel.names(folder)
            if os.path.islink(os.path.join(folder, name)) and name not in files
        ]
    # A loop device, which is always there, gets another sequence number with each file.
    found = [line for line in found if not _leads_to_loop(line.removeprefix("link "))]
    found += [f"link /dev/mapper/{name}" for name in kernel.names("/dev/mapper")]
    return [line for line in found if line != "link /dev/mapper/control"]


def _leads_to_loop(link: str) -> bool:
    return os.path.realpath(link).startswith("/dev/loop")


def _mounts() -> list[str]:
    mounts = [line.split()[:3] for line in kernel.read("/proc/self/mounts").splitlines()]
    # nfsd's is the lab's own server, which stays.
    return ["mount " + " ".join(words) for words in mounts if words[2] != "nfsd"]


def _secret_files() -> list[str]:
    """Configuration files of Ceph's that the library makes."""
    return [f"file {path}" for path in ceph_images.secret_files()]


def _programs() -> list[str]:
    """Programs of the group other than Python: what the library started and did not end."""
    found = []
    for pid in kernel.read(GROUP / "cgroup.procs").split():
        words = kernel.read(f"/proc/{pid}/cmdline").split("\0")
        if words != [""] and "python" not in words[0]:
            found.append(f"program {pid} {' '.join(words).strip()}")
    return found


def _monitored() -> list[str]:
    """What multipathd watches; nothing if it does not run."""
    found = []
    for kind, form in (("paths", "%d %w %m"), ("maps", "%d %n")):
        try:
            text = kernel.run(
                "multipathd", "show", kind, "raw", "format", form, check=False, limit_s=20
            )
        except AssertionError:
            found.append("multipathd does not answer")
            continue
        for line in text.splitlines():
            if line.startswith(("sd", "dm-", "nvme")):
                name = "orphan" if "[orphan]" in line else kind[:-1]
                found.append(f"multipathd {name} {' '.join(line.split())}")
    return found
