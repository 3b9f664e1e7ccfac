# SPDX-License-Identifier: Apache-2.0
"""Methods of the NVMe-oF connector by which others manage the md arrays of replicated volumes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import md, nodes, nvme_replicas
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.doors import HasHost
from os_brick.initiator.linux.nvme_volume import RAID_PATH

LOG = logging.getLogger(__name__)

_LIMIT_S = 120.0
_DEV = "/dev/"


class RaidMethods(HasHost):
    """Making, starting and stopping arrays by hand; an attach and a detach do so by themselves."""

    @contextlib.contextmanager
    def _helper_call(self, operation: str) -> Iterator[Call]:
        yield Call(operation, self.host.clock, _LIMIT_S)

    def run_mdadm(self, cmd: Sequence[str], raise_exception: bool = False) -> str | None:
        """Run a program (``mdadm`` and its words) as root and return the first line it printed.

        :returns: None if it failed or printed nothing.
        :raises ProcessExecutionError: it failed, with ``raise_exception``.
        """
        with self._helper_call("mdadm") as call:
            result = self.host.programs.run(call, *cmd, limit_s=_LIMIT_S)
        if result.code != 0:
            LOG.warning("%s failed: %s", " ".join(cmd), result.summary)
            if raise_exception:
                result.check()
            return None
        lines = result.out.splitlines()
        return lines[0] if lines else None

    def stop_and_assemble_raid(self, drives: Sequence[str], md_path: str, read_only: bool) -> None:
        """Have the array of some drives run under a path, whatever udev has made of it.

        :raises BrickException: the drives are no members, or do not belong together.
        """
        with self._helper_call(f"assemble {md_path}") as call:
            names = [self._name_of(drive) for drive in drives]
            found = [md.examine(self.host, call, name) for name in names]
            members = [one for one in found if one is not None]
            if not members:
                raise exception.BrickException(f"{', '.join(drives)} are no members of an array")
            nvme_replicas.start(self.host, call, md_path, members, bool(read_only))

    def assemble_raid(self, drives: Sequence[str], md_path: str, read_only: bool) -> bool:
        """Start an array from its drives and return True.

        :raises ProcessExecutionError: mdadm could not.
        """
        with self._helper_call(f"assemble {md_path}") as call:
            names = [self._name_of(drive) for drive in drives]
            md.assemble(self.host, call, md_path, names, bool(read_only))
        return True

    def create_raid(
        self,
        drives: Sequence[str],
        raid_type: str,
        device_name: str,
        name: str,
        read_only: bool,
    ) -> None:
        """Make an array of drives.

        :param raid_type: level, ``"1"``.
        :param device_name: path or name of the array below ``/dev/md/``.
        :param name: kept in the array itself.
        :raises ProcessExecutionError: mdadm could not.
        :raises NotFound: it did not appear.
        """
        with self._helper_call(f"create {name}") as call:
            names = [self._name_of(drive) for drive in drives]
            path = device_name if device_name.startswith("/") else RAID_PATH + device_name
            md.create(self.host, call, name, str(raid_type), names, bool(read_only), path)
            md.wait_for_node(self.host, call, path, names)

    def end_raid(self, device_path: str) -> None:
        """Stop an array if it runs, and remove its name.

        :raises DeviceInUse: somebody holds it.
        """
        with self._helper_call(f"end {device_path}") as call:
            array = nodes.kernel_name(self.host, device_path)
            if array is not None and self.host.sysfs.exists("block", array, "md"):
                md.stop(self.host, call, array)
            md.unlink(self.host, call, device_path)

    def stop_raid(self, md_path: str, raise_exception: bool = False) -> str | None:
        """Run ``mdadm --stop`` and return the first line it printed."""
        return self.run_mdadm(["mdadm", "--stop", md_path], raise_exception)

    def is_raid_exists(self, device_path: str) -> bool:
        """Tell whether ``mdadm --detail`` knows an array."""
        return self.run_mdadm(["mdadm", "--detail", device_path]) == f"{device_path}:"

    def remove_raid(self, device_path: str) -> None:
        """Run ``mdadm --remove`` and remove the array's name."""
        self.run_mdadm(["mdadm", "--remove", device_path])
        with self._helper_call(f"remove {device_path}") as call:
            md.unlink(self.host, call, device_path)

    @staticmethod
    def get_md_name(device_name: str) -> str | None:
        """Return the kernel name of the array that a drive is a member of; None if it is none.

        :param device_name: of the drive, ``"nvme0n1"``.
        """
        try:
            with open("/proc/mdstat", encoding="utf-8") as file:
                return md.find_in_mdstat(file.read(), device_name)
        except OSError as exc:
            LOG.debug("No arrays: %s", exc)
            return None

    @staticmethod
    def ks_readlink(dest: str) -> str:
        """Return the text of a link; empty text if it is none."""
        try:
            return os.readlink(dest)
        except OSError:
            return ""

    def _name_of(self, drive: str) -> str:
        """Return a drive's kernel name, by which sysfs shows what holds it."""
        name = drive.removeprefix(_DEV)
        return nodes.kernel_name(self.host, _DEV + name) or name
