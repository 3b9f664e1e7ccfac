# SPDX-License-Identifier: Apache-2.0
"""iscsid and multipathd without an init system: start, stop, configure."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import time

from . import kernel


@dataclasses.dataclass(frozen=True)
class MultipathConfig:
    """What of multipath.conf makes a difference to attaching volumes (multipath.conf(5))."""

    find_multipaths: str = "no"
    user_friendly_names: str = "no"
    #: ``fail``, ``queue`` or a number of retries.
    no_path_retry: str = "fail"

    def text(self) -> str:
        """Return the configuration file."""
        return (
            "defaults {\n"
            f"    find_multipaths {self.find_multipaths}\n"
            f"    user_friendly_names {self.user_friendly_names}\n"
            f"    no_path_retry {self.no_path_retry}\n"
            "    skip_kpartx yes\n"
            "    polling_interval 2\n"
            "}\n"
            # The kernel's own LIO entry would say no_path_retry 12 or so for some versions.
            "overrides {\n"
            f"    no_path_retry {self.no_path_retry}\n"
            "}\n"
        )


class Iscsid:
    """The iSCSI daemon."""

    def start(self) -> None:
        """Start it and wait until it answers."""
        if _alive("iscsid"):
            return
        kernel.load("iscsi_tcp")
        pathlib.Path("/run/lock/iscsi").mkdir(parents=True, exist_ok=True)
        kernel.run("iscsid")
        kernel.wait_for(self._answers, "iscsid answers", 60)
        outlive_the_scenario("iscsid")
        kernel.wait_for(self._knows_all_sessions, "iscsid has taken the sessions over", 60)

    def stop(self) -> None:
        """End it; sessions that exist live on in the kernel."""
        end("iscsid")

    def _knows_all_sessions(self) -> bool:
        """Whether it speaks to the targets of the sessions that were there before it."""
        count = len(kernel.names("/sys/class/iscsi_session"))
        if not count:
            return True
        text = kernel.run("iscsiadm", "-m", "session", "-P", "1", check=False)
        return text.count("iSCSI Connection State: LOGGED IN") == count

    def _answers(self) -> bool:
        # The daemon listens on an abstract socket of this name (open-iscsi, mgmt_ipc.h).
        return "@ISCSIADM_ABSTRACT_NAMESPACE" in kernel.read("/proc/net/unix")


class Multipathd:
    """The multipath daemon."""

    def start(self, config: MultipathConfig) -> None:
        """Run with ``config``; restarts the daemon only if that differs from what runs."""
        file = pathlib.Path("/etc/multipath.conf")
        if _alive("multipathd") and kernel.read(file) == config.text().strip():
            return
        self.stop()
        kernel.load("dm_multipath")
        file.write_text(config.text())
        self.forget()
        log = open("/run/multipathd.log", "ab")  # noqa: SIM115 - the daemon keeps it
        subprocess.Popen(
            ["multipathd", "-d", "-s"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        kernel.wait_for(self.ready, "multipathd is idle or running", 60)
        outlive_the_scenario("multipathd")

    def stop(self) -> None:
        """End it; maps that exist live on in the kernel."""
        end("multipathd")

    def forget(self) -> None:
        """Let it forget which volumes it has seen: their identities and friendly names."""
        for name in ("wwids", "bindings"):
            pathlib.Path("/etc/multipath", name).unlink(missing_ok=True)

    def ready(self) -> bool:
        """Whether it answers and has read its configuration."""
        answer = kernel.run("multipathd", "show", "daemon", check=False, limit_s=20)
        return "idle" in answer or "running" in answer


def outlive_the_scenario(name: str) -> None:
    """Take a daemon out of the group of processes that ends with the scenario."""
    for pid in _pids(name):
        kernel.write("/sys/fs/cgroup/cgroup.procs", str(pid))


def _pids(name: str) -> list[int]:
    return [
        int(pid)
        for pid in kernel.names("/proc")
        if pid.isdigit() and kernel.read(f"/proc/{pid}/comm") == name and not _zombie(pid)
    ]


def _zombie(pid: str) -> bool:
    return kernel.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] == ["Z"]


def _alive(name: str) -> bool:
    return bool(_pids(name))


def end(name: str) -> None:
    """End every process of this name: asked for 10 s, then killed."""
    began = time.monotonic()
    while pids := _pids(name):
        waited = time.monotonic() - began
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if waited < 10 else signal.SIGKILL)
        if waited > 30:
            raise kernel.NotSeen(f"{name} does not end")
        time.sleep(0.1)
