# SPDX-License-Identifier: Apache-2.0
"""One volume group of this host, by LVM's programs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, opts
from os_brick import executor as brick_executor
from os_brick.initiator.linux.call import Call, public_call
from os_brick.initiator.linux.doors import HasHost
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.programs import Programs
from os_brick.local_dev import lvm_info, lvm_mappings, lvm_sizes, lvm_tools, lvm_volumes
from os_brick.local_dev.lvm_reports import VolumeGroup
from os_brick.local_dev.lvm_tools import Tools, check_name
from os_brick.local_dev.lvm_volumes import Place, checked

LOG = logging.getLogger(__name__)

_THIN = "thin"
# LVM refuses names that begin so.
_RESERVED = "snapshot"


class LVM(HasHost):
    """One volume group, and the volumes in it.

    Sizes in attributes and results are GiB. Every method ends within ``[os_brick] call_timeout``
    and raises :class:`~os_brick.exception.DeadlineExceeded` if that was too short,
    ``ProcessExecutionError`` if LVM refuses, and
    :class:`~os_brick.exception.InvalidParameterValue` for names and sizes that cannot be any.

    Two calls for the same volume exclude each other by the library's file locks, in whatever
    process they are made, if a directory for these is configured; LVM's own locks hold in any case.

    :param vg_name: name of the group.
    :param root_helper: command by which ``executor`` becomes root.
    :param create_vg: make the group of ``physical_volumes`` first.
    :param physical_volumes: paths of disks.
    :param lvm_type: ``"thin"`` for thin volumes in the pool ``<vg_name>-pool``, which is made, of
        all that is free, unless it is there.
    :param executor: runs all programs in place of the library's own function.
    :param lvm_conf: path of an ``lvm.conf`` for the commands that report and make volumes; ignored
        if there is no such file.
    :param suppress_fd_warn: have LVM say nothing of file descriptors that it inherited.
    :param host: the doors to the host, for tests (:class:`~os_brick.initiator.linux.host.Host`).
    :raises VolumeGroupCreationFailed: the group could not be made.
    :raises VolumeGroupNotFound: there is no such group, or more than one.
    """

    #: What commands start with whose answer is read. Each object has its own.
    LVM_CMD_PREFIX: list[str] = list(lvm_tools.PREFIX)  # noqa: RUF012 - services know it as a list

    def __init__(
        self,
        vg_name: str,
        root_helper: str | None,
        create_vg: bool = False,
        physical_volumes: Sequence[str] | None = None,
        lvm_type: str = "default",
        executor: brick_executor.ExecuteFunction | None = None,
        lvm_conf: str | None = None,
        suppress_fd_warn: bool = False,
        host: Host | None = None,
    ) -> None:
        super().__init__(root_helper, executor, host=host)
        self.vg_name = check_name(vg_name, "volume group")
        self.LVM_CMD_PREFIX = list(lvm_tools.prefix_of(lvm_conf, suppress_fd_warn))
        self.pv_list: list[dict[str, Any]] = []
        self.vg_size = 0.0
        self.vg_free_space = 0.0
        self.vg_lv_count = 0
        self.vg_uuid: str | None = None
        self.vg_thin_pool: str | None = None
        self.vg_thin_pool_size = 0.0
        self.vg_thin_pool_free_space: float | None = 0.0
        self.vg_provisioned_capacity = 0.0
        if create_vg and physical_volumes is not None:
            try:
                self._create_vg(physical_volumes)
            except processutils.ProcessExecutionError as exc:
                raise exception.VolumeGroupCreationFailed(vg_name=self.vg_name) from exc
        self._take(self._group(self._reading()))
        if lvm_type == _THIN:
            self._prepare_pool(f"{self.vg_name}-pool")
        self.get_physical_volumes()

    def _prepare_pool(self, name: str) -> None:
        """Find or make the group's thin pool, and activate it."""
        if self.get_volume(name) is None:
            try:
                self.create_thin_pool(name)
            except processutils.ProcessExecutionError:
                # Another service of this host may have made it meanwhile.
                if self.get_volume(name) is None:
                    raise
        self.vg_thin_pool = name
        self.activate_lv(name)

    # -- calls --------------------------------------------------------------------------------
    @property
    def _tools(self) -> Tools:
        return Tools(self.host, tuple(self.LVM_CMD_PREFIX))

    def _reading(self) -> Call:
        return lvm_info.reading(self._tools, self.vg_name)

    @contextlib.contextmanager
    def _changing(self, what: str, *names: str) -> Iterator[Call]:
        """Give a call its deadline and hold the locks of volumes of this group."""
        operation = f"{what} in volume group {self.vg_name}"
        limit_s = cfg.CONF[opts.GROUP].call_timeout
        with public_call(operation, self.host.clock, limit_s) as call:
            stack = contextlib.ExitStack()
            locks = [f"lvm {self.vg_name}/{name}" for name in names]
            try:
                stack.enter_context(self.host.locks.held(call, locks))
            except cfg.RequiredOptError:
                # LVM's own locks keep its metadata whole; callers have never had to configure ours.
                LOG.debug("No lock_path is configured: %s without a lock", operation)
            with stack:
                yield call

    def _place(self, name: str) -> Place:
        return Place(self.vg_name, check_name(name, "volume"))

    def _run_lvm_command(
        self, cmd_arg_list: Sequence[str], root_helper: str | None = None, run_as_root: bool = True
    ) -> Any:
        """Run a command, again if it crashes; return ``(stdout, stderr)``.

        :param root_helper: None for that of this object.
        :param run_as_root: False runs it once, as the service's user.
        """
        if not run_as_root:
            return self._execute(*cmd_arg_list)
        tools = self._tools
        if root_helper is not None:
            programs = Programs(self._execute, root_helper)
            tools = Tools(dataclasses.replace(self.host, programs=programs))
        result = tools.run_patiently(lvm_info.reading(tools, self.vg_name), *cmd_arg_list).check()
        return result.out, result.err

    # -- the group ----------------------------------------------------------------------------
    def _create_vg(self, pv_list: Sequence[str]) -> None:
        """Make the group of disks."""
        for path in pv_list:
            if not isinstance(path, str) or not path or path.startswith("-"):
                raise exception.InvalidParameterValue(
                    err=f"physical_volumes: {path!r} is no path of a disk"
                )
        with self._changing("Creation", "") as call:
            result = self._tools.run(call, "vgcreate", self.vg_name, *pv_list)
            checked(result, f"Error creating Volume Group {self.vg_name}")

    def _vg_exists(self) -> bool:
        """Whether there is exactly one group of this name."""
        return len(self._tools.find_groups(self._reading(), self.vg_name)) == 1

    def _get_vg_uuid(self) -> list[str]:
        """UUID of the group, as a list of one."""
        return [one.uuid for one in self._tools.find_groups(self._reading(), self.vg_name)]

    def _group(self, call: Call) -> VolumeGroup:
        found = self._tools.find_groups(call, self.vg_name)
        if len(found) == 1:
            return found[0]
        LOG.error("Unable to find VG: %s", self.vg_name)
        reason = "More than one group has this name." if found else None
        raise exception.VolumeGroupNotFound(vg_name=self.vg_name, reason=reason)

    def _take(self, group: VolumeGroup) -> None:
        self.vg_size = lvm_sizes.gib(group.size)
        self.vg_free_space = lvm_sizes.gib(group.free)
        self.vg_lv_count = group.volumes
        self.vg_uuid = group.uuid

    def update_volume_group_info(self) -> None:
        """Bring the attributes up to date.

        ``vg_thin_pool_free_space`` is None while it is not known, as when the pool is inactive.

        :raises VolumeGroupNotFound: the group is not there, or not the only one of its name.
        """
        call = self._reading()
        self._take(self._group(call))
        if self.vg_thin_pool is None:
            return
        volumes = self._tools.volumes(call, self.vg_name, readonly=False)
        pool = next((one for one in volumes if one.name == self.vg_thin_pool), None)
        others = sum(one.size for one in volumes if one is not pool)
        self.vg_thin_pool_size = lvm_sizes.gib(pool.size) if pool else 0.0
        self.vg_thin_pool_free_space = lvm_info.free(pool) if pool else 0.0
        self.vg_provisioned_capacity = round(lvm_sizes.gib(others), 2)

    def vg_mirror_free_space(self, mirror_count: int) -> float:
        """GiB that volumes with so many mirrors can still take, from the disks' free space."""
        free = 0.0
        disks = [float(disk["available"]) for disk in self.pv_list]
        while True:
            disks = sorted((one for one in disks if one > 0.0), reverse=True)
            if len(disks) <= mirror_count:
                return free
            smallest = disks.pop()
            for index in range(mirror_count):
                disks[index] -= smallest
            free += smallest

    def vg_mirror_size(self, mirror_count: int) -> float:
        """GiB that are free for volumes with so many mirrors, wherever the space is."""
        return self.vg_free_space / (mirror_count + 1)

    # -- reports ------------------------------------------------------------------------------
    @staticmethod
    def get_lvm_version(root_helper: str | None) -> tuple[int, int, int]:
        """LVM's version, such as ``(2, 3, 16)``.

        :raises BrickException: it cannot be read from what LVM says.
        """
        tools = lvm_info.default_tools(root_helper)
        return tools.version(lvm_info.reading(tools))

    @staticmethod
    def get_lv_info(
        root_helper: str | None, vg_name: str | None = None, lv_name: str | None = None
    ) -> list[dict[str, str]]:
        """Volumes of a group, or of all groups, or one of a group.

        :returns: ``{"vg", "name", "size"}`` each; the size is exact text in GiB, such as
            ``"1.50"``. Empty if there is no such group or volume.
        """
        return lvm_info.volumes(lvm_info.default_tools(root_helper), vg_name, lv_name)

    @staticmethod
    def get_all_physical_volumes(
        root_helper: str | None, vg_name: str | None = None
    ) -> list[dict[str, Any]]:
        """Disks of a group, or of all groups and none.

        :returns: ``{"vg", "name", "size", "available"}`` each, the last two as float. Of a disk
            that is missing nothing is available.
        """
        return lvm_info.disks(lvm_info.default_tools(root_helper), vg_name)

    @staticmethod
    def get_all_volume_groups(
        root_helper: str | None, vg_name: str | None = None
    ) -> list[dict[str, Any]]:
        """A group, or all.

        :returns: ``{"name", "size", "available", "lv_count", "uuid"}`` each.
        """
        tools = lvm_info.default_tools(root_helper)
        return [lvm_info.group(one) for one in tools.groups(lvm_info.reading(tools), vg_name)]

    def get_volumes(self, lv_name: str | None = None) -> list[dict[str, str]]:
        """Volumes of this group, or one of them: see :meth:`get_lv_info`."""
        return lvm_info.volumes(self._tools, self.vg_name, lv_name)

    def get_volume(self, name: str) -> dict[str, str] | None:
        """A volume of this group, see :meth:`get_lv_info`; None if it is not there."""
        return next(iter(self.get_volumes(name)), None)

    def get_physical_volumes(self) -> list[dict[str, Any]]:
        """Disks of this group, see :meth:`get_all_physical_volumes`; also in ``pv_list``."""
        self.pv_list = lvm_info.disks(self._tools, self.vg_name)
        return self.pv_list

    def lv_has_snapshot(self, name: str) -> bool:
        """Whether a volume is the origin of thick snapshots; thin ones depend on nobody.

        :raises VolumeDeviceNotFound: there is no such volume.
        """
        place = self._place(name)
        found = self._tools.find_volume(self._reading(), place.group, place.name)
        if found is None:
            raise exception.VolumeDeviceNotFound(device=place.path)
        return found.has_thick_snapshots

    def _lv_is_active(self, name: str) -> bool:
        """Whether the kernel has a device for a volume."""
        return lvm_mappings.find(self.host.sysfs, self.vg_name, name) is not None

    # -- thin pools ---------------------------------------------------------------------------
    def _calculate_thin_pool_size(self) -> list[str]:
        """What tells lvcreate the size of a pool: all that is free."""
        return ["-l", "100%FREE"]

    def create_thin_pool(self, name: str | None = None) -> None:
        """Make a thin pool of all that is free, for the thin volumes of this object.

        :param name: ``<vg_name>-pool`` if None.
        """
        pool = self._place(name or f"{self.vg_name}-pool")
        self.update_volume_group_info()
        words = ["lvcreate", "-T", *self._calculate_thin_pool_size(), pool.path]
        with self._changing(f"Creation of thin pool {pool.name}", pool.name) as call:
            lvm_volumes.create(self._tools, call, pool, words)
        self.vg_thin_pool = pool.name

    def _get_thin_pool_free_space(self, vg_name: str, thin_pool_name: str) -> float | None:
        """GiB that are free in a pool; None if that cannot be found out."""
        try:
            found = self._tools.find_volumes(
                self._reading(), vg_name, thin_pool_name, readonly=False
            )
        except processutils.ProcessExecutionError as exc:
            lvm_volumes.log_failure("Error querying thin pool about data_percent", exc)
            return None
        return lvm_info.free(found[0]) if found else None

    # -- volumes ------------------------------------------------------------------------------
    def create_volume(
        self, name: str, size_str: str, lv_type: str = "default", mirror_count: int = 0
    ) -> None:
        """Make a volume.

        :param size_str: such as ``"10g"``.
        :param lv_type: ``"thin"`` for one in this object's pool.
        :param mirror_count: copies beside the first, of thick ones.
        """
        place = self._place(name)
        size = lvm_sizes.requested_bytes(size_str)
        if lv_type == _THIN:
            if self.vg_thin_pool is None:
                raise exception.InvalidParameterValue(
                    err=f"lv_type: volume group {self.vg_name} has no thin pool here"
                )
            pool = f"{self.vg_name}/{self.vg_thin_pool}"
            words = ["lvcreate", "-T", "-V", size_str, "-n", name, pool]
        else:
            words = ["lvcreate", "-n", name, self.vg_name, "-L", size_str]
        if mirror_count > 0:
            # raid1, the default type of mirrors, has no log. Where LVM refuses this one it goes to
            # one disk.
            words += ["--type=mirror", "-m", str(mirror_count), "--nosync"]
            words += ["--mirrorlog", "mirrored"]
            region = lvm_sizes.mirror_region(size)
            words += ["-R", str(region)] if region else []
        with self._changing(f"Creation of volume {name}", name) as call:
            lvm_volumes.create(self._tools, call, place, words)

    def create_lv_snapshot(self, name: str, source_lv_name: str, lv_type: str = "default") -> None:
        """Make a snapshot of a volume.

        :param lv_type: ``"thin"`` for one of a thin volume; another has as much room for changes as
            its source has now.
        :raises VolumeDeviceNotFound: there is no such source.
        """
        place = self._place(name)
        check_name(source_lv_name, "source_lv_name")
        with self._changing(f"Creation of snapshot {name}", name, source_lv_name) as call:
            lvm_volumes.create_snapshot(
                self._tools, call, place, source_lv_name, thin=lv_type == _THIN
            )

    def _mangle_lv_name(self, name: str) -> str:
        """Name of a volume in LVM, which reserves those that begin with ``snapshot``."""
        return f"_{name}" if name.startswith(_RESERVED) else name

    def activate_lv(self, name: str, is_snapshot: bool = False, permanent: bool = False) -> None:
        """Have the kernel make a volume's device.

        :param name: one that begins with ``snapshot`` stands for the same after ``_``.
        :param is_snapshot: accepted for the callers' sake; snapshots need nothing of their own.
        :param permanent: also when the group is activated the next time, as at boot.
        """
        place = self._place(self._mangle_lv_name(name))
        with self._changing(f"Activation of {name}", place.name) as call:
            lvm_volumes.activate(self._tools, call, place, permanent=permanent)

    def deactivate_lv(self, name: str) -> None:
        """Have the kernel remove a volume's device, and wait until it has.

        :param name: see :meth:`activate_lv`.
        :raises VolumeNotDeactivated: it is still there 15 seconds after LVM has said it is not.
        """
        place = self._place(self._mangle_lv_name(name))
        with self._changing(f"Deactivation of {name}", place.name) as call:
            lvm_volumes.deactivate(self._tools, call, place)

    def _wait_for_volume_deactivation(self, name: str) -> None:
        """Wait until a volume has no device any more.

        :raises VolumeNotDeactivated: after 15 seconds.
        """
        place = self._place(self._mangle_lv_name(name))
        lvm_volumes.wait_until_inactive(self._tools, self._reading(), place)

    def delete(self, name: str) -> None:
        """Remove a volume, its thick snapshots with it.

        :raises ProcessExecutionError: LVM could not do it. A volume that is mounted or carries
            other devices is tried once, other reasons are tried again for some seconds.
        """
        place = self._place(name)
        with self._changing(f"Removal of volume {name}", name) as call:
            lvm_volumes.delete(self._tools, call, place)

    def revert(self, snapshot_name: str) -> None:
        """Turn a volume back to a snapshot of it, which goes with that.

        While the volume is in use LVM only takes a note, and does it at the next activation.

        :param snapshot_name: with its group: ``group/snapshot``.
        """
        name = snapshot_name.rpartition("/")[2]
        with self._changing(f"Revert to {snapshot_name}", name) as call:
            words = ("lvconvert", "--merge", snapshot_name)
            checked(self._tools.run(call, *words), f"Error reverting to {snapshot_name}")

    def extend_volume(self, lv_name: str, new_size: str) -> None:
        """Make a volume larger.

        One with thick snapshots is inactive meanwhile, and active again afterwards if it was.

        :param new_size: such as ``"20g"``, or ``"+10g"``.
        """
        place = self._place(lv_name)
        with self._changing(f"Extension of volume {lv_name}", lv_name) as call:
            lvm_volumes.extend(self._tools, call, place, new_size)

    def rename_volume(self, lv_name: str, new_name: str) -> None:
        """Give a volume another name."""
        old, new = self._place(lv_name), self._place(new_name)
        with self._changing(f"Renaming of volume {lv_name}", lv_name, new_name) as call:
            result = self._tools.run(call, "lvrename", self.vg_name, old.name, new.name)
            checked(result, f"Error renaming logical volume {old.path} to {new_name}")

    # -- what LVM can do, for callers of old --------------------------------------------------
    @staticmethod
    def supports_thin_provisioning(root_helper: str | None) -> bool:
        """Whether LVM knows thin volumes (2.02.95)."""
        return LVM.get_lvm_version(root_helper) >= (2, 2, 95)

    @property
    def supports_snapshot_lv_activation(self) -> bool:
        """Whether LVM activates snapshots by themselves (2.02.91)."""
        return self._version() >= (2, 2, 91)

    @property
    def supports_lvchange_ignoreskipactivation(self) -> bool:
        """Whether LVM knows ``lvchange -K`` (2.02.99)."""
        return self._version() >= (2, 2, 99)

    @property
    def supports_full_pool_create(self) -> bool:
        """Whether LVM makes pools of all that is free (2.02.115)."""
        return self._version() >= (2, 2, 115)

    def _version(self) -> tuple[int, int, int]:
        return self._tools.version(self._reading())
