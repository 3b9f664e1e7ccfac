# SPDX-License-Identifier: Apache-2.0
"""NVMe over Fabrics: connection properties in, device out."""

from __future__ import annotations

import functools
import importlib
import shutil
import types
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, utils
from os_brick.initiator import nvmeof_raid
from os_brick.initiator.connectors import base
from os_brick.initiator.linux import (
    md,
    nodes,
    nvme,
    nvme_attach,
    nvme_connections,
    nvme_detach,
    nvme_identity,
    nvme_namespaces,
    nvme_portals,
    nvme_presence,
    nvme_replicas,
    nvme_resize,
)
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.nvme_changes import HostIdentity
from os_brick.initiator.linux.nvme_presence import Presence
from os_brick.initiator.linux.nvme_volume import RAID_PATH, NvmeTarget, NvmeVolume

# Names that services and connectors outside this library know here.
from os_brick.initiator.nvmeof_targets import (
    ALIAS,
    BLK_SYSFS_PATH,
    DEV_SEARCH_PATH,
    DEVICE_SCAN_ATTEMPTS_DEFAULT,
    HOST_NQN,
    NGUID,
    NQN,
    NSID,
    NVME_CTRL_SYSFS_PATH,
    OLD_NQN,
    PORT,
    PORTAL,
    PORTALS,
    REPLICA_COUNT,
    REPLICAS,
    TRANSPORT,
    UUID,
    NVMeOFConnProps,
    Portal,
    Target,
    blk_property,
    ctrl_property,
    nvme_basename,
    sysfs_property,
)

nvmeof_agent: types.ModuleType | None
try:
    nvmeof_agent = importlib.import_module("os_brick.initiator.connectors.nvmeof_agent")
except ImportError:  # it is no part of this library
    nvmeof_agent = None

__all__ = [
    "ALIAS",
    "BLK_SYSFS_PATH",
    "DEVICE_SCAN_ATTEMPTS_DEFAULT",
    "DEV_SEARCH_PATH",
    "HOST_NQN",
    "NGUID",
    "NQN",
    "NSID",
    "NVME_CTRL_SYSFS_PATH",
    "OLD_NQN",
    "PORT",
    "PORTAL",
    "PORTALS",
    "RAID_PATH",
    "REPLICAS",
    "REPLICA_COUNT",
    "TRANSPORT",
    "UUID",
    "NVMeOFConnProps",
    "NVMeOFConnector",
    "Portal",
    "Target",
    "blk_property",
    "ctrl_property",
    "nvme_basename",
    "nvmeof_agent",
    "sysfs_property",
]

LOG = logging.getLogger(__name__)

_HELPER_LIMIT_S = 120.0
_FACTS_LIMIT_S = 60.0
_UNDO_LIMIT_S = 300.0


class NVMeOFConnector(nvmeof_raid.RaidMethods, base.BaseLinuxConnector):
    """Attaches NVMe-oF volumes over TCP, RDMA and Fibre Channel, with the kernel's native multipath
    where it is on; replicated volumes as md arrays. Protocols NVME and NVMEOF.

    :param use_multipath: connect all portals of a volume, not just one.
    :param device_scan_attempts: how often a controller is scanned for a namespace that does not
        appear.
    """

    #: Kept for those who read it: the kernel is asked each time it matters.
    native_multipath_supported: ClassVar[bool | None] = None
    #: Seconds that a controller in trouble is given to come back, besides its own delay.
    TIME_TO_CONNECT: ClassVar[int] = 10

    def __init__(
        self,
        root_helper: str | None,
        driver: Any = None,
        use_multipath: bool = False,
        device_scan_attempts: int = DEVICE_SCAN_ATTEMPTS_DEFAULT,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root_helper,
            driver,
            kwargs.pop("execute", None),
            *args,
            use_multipath=use_multipath,
            device_scan_attempts=device_scan_attempts,
            **kwargs,
        )

    # -- this host ----------------------------------------------------------------------------
    @classmethod
    def nvme_present(cls) -> bool:
        """Tell whether nvme-cli is installed and runs."""
        from os_brick.privileged import rootwrap

        try:
            rootwrap.custom_execute("nvme", "version", timeout=_HELPER_LIMIT_S)
        except (OSError, processutils.ProcessExecutionError) as exc:
            missing = isinstance(exc, FileNotFoundError) or shutil.which("nvme") is None
            log = LOG.debug if missing else LOG.warning
            log("nvme-cli does not run: %s", exc)
            return False
        return True

    @classmethod
    def get_connector_properties(
        cls, root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return ``nvme_native_multipath`` and, where known, ``uuid`` (of the root file system),
        ``system uuid``, ``nqn`` and ``nvme_hostid``.

        The files below ``/etc/nvme`` are made if nvme-cli is installed and they are missing.
        """
        execute = kwargs.get("execute")
        connector = cls(root_helper, execute=execute)
        if execute is not None:
            # It may lead into another container, with other files and programs.
            return connector.read_host_properties(nvme_identity.Facts())
        return connector.read_host_properties(_facts(root_helper))

    def read_host_properties(self, facts: nvme_identity.Facts) -> dict[str, Any]:
        """Return what :meth:`get_connector_properties` does, for the host of this connector.

        :param facts: remembers what does not change while the host is up.
        """
        call = Call("NVMe properties of this host", self.host.clock, _FACTS_LIMIT_S)
        ask = partial(nvme_identity.find_cli, self.host, call, in_path=self.runs_here)
        present = facts.remember("nvme-cli", ask)
        return nvme_identity.read_properties(self.host, call, bool(present), facts)

    def supports_multipath(self) -> bool:
        """Tell whether the kernel joins the paths of NVMe namespaces."""
        return bool(nvme.has_native_multipath(self.host.sysfs))

    # -- attach -------------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_prepare_result
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Attach a volume.

        :returns: ``{"type": "block", "path": "/dev/nvme…n…" or "/dev/md/<alias>"}``.
        :raises InvalidParameterValue: the properties cannot be used; nothing was changed.
        :raises BrickException: multipath is enforced and the kernel cannot do it; or the legs of a
            replicated volume do not belong together.
        :raises VolumeDeviceNotFound: no portal led to the namespace; the host is as it was before.
        :raises DeadlineExceeded: option ``call_timeout``.
        """
        volume = NvmeVolume.parse(connection_properties)
        with self._public_call(f"Attach of {volume}") as call:
            multipath = self._wants_multipath(call, volume, connection_properties)
            with self.host.locks.held(call, volume.lock_names):
                identity = nvme_identity.settle(self.host, call)
                if volume.alias:
                    path = self._attach_replicated(call, volume, identity, multipath)
                else:
                    attempt = self._attempt(call, volume, volume.targets[0], identity, multipath)
                    path = attempt.run().path
        return {"type": "block", "path": path}

    def _wants_multipath(
        self, call: Call, volume: NvmeVolume, connection_properties: dict[str, Any]
    ) -> bool:
        if self.use_multipath and nvme.has_native_multipath(self.host.sysfs) is None:
            # Before its driver is loaded the kernel does not say whether it can.
            transport = volume.targets[0].portals[0].transport
            nvme_connections.load_driver(self.host, call, transport)
        return self.check_multipath(connection_properties)

    def _attempt(
        self,
        call: Call,
        volume: NvmeVolume,
        target: NvmeTarget,
        identity: HostIdentity,
        multipath: bool,
    ) -> nvme_attach.Attempt:
        return nvme_attach.Attempt(
            self.host,
            call,
            target,
            nvme_portals.ways_to_connect(self.host, call, target, identity),
            nvme_attach.Settings(multipath, self.device_scan_attempts),
            volume.lock_names,
        )

    def _attach_replicated(
        self, call: Call, volume: NvmeVolume, identity: HostIdentity, multipath: bool
    ) -> str:
        attempts: list[nvme_attach.Attempt] = []
        before = nodes.kernel_name(self.host, volume.md_path)

        def attach(target: NvmeTarget) -> str:
            attempt = self._attempt(call, volume, target, identity, multipath)
            attempts.append(attempt)
            return attempt.run().head

        legs = {f"{at} ({leg.nqn})": partial(attach, leg) for at, leg in enumerate(volume.targets)}
        try:
            disks = nvme_replicas.connect_legs(call, legs, volume.alias)
            path = nvme_replicas.bring_up(self.host, call, volume, disks, attempts)
            if nvmeof_agent is not None:
                nvmeof_agent.NVMeOFAgent.ensure_running(self)
        except BaseException:
            later = call.later(f"undo {call.operation}", _UNDO_LIMIT_S)
            nvme_replicas.undo(self.host, later, attempts, [before] if before else [])
            raise
        return path

    # -- detach -------------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_undo_prepare_result(unlink_after=True)
    def disconnect_volume(
        self,
        connection_properties: dict[str, Any],
        device_info: Any,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Detach a volume. When it returns without ``force``, its data is on the storage, and every
        controller on which nobody else has a namespace is disconnected.

        :raises DeviceInUse: somebody uses it (without ``force``); nothing was changed.
        :raises WrongVolume: the namespace is another volume by now (without ``force``).
        :raises ProcessExecutionError: its data could not be written out (without ``force``).
        :raises ExceptionChainer: what failed (with ``force``, without ``ignore_errors``).
        :raises TargetPortalNotFound: nothing of it was found, but a portal's name could not be
            resolved (without ``force``).
        :raises OSError: the host could not be looked at.
        """
        volume = NvmeVolume.parse(connection_properties)
        path_used = self._path_used(connection_properties, device_info)
        with self._detaching(volume, force, ignore_errors) as (call, errors):
            if not path_used:
                LOG.warning("Detaching the %s without its device's path", volume)
            presences = self._present(call, volume, path_used, force=force, errors=errors)
            legs = [head for presence in presences for head in presence.heads]
            arrays = nvme_replicas.arrays_of(self.host, volume, legs) if volume.alias else {}
            disks = nvme_replicas.instances(self.host, legs)
            if not legs and not arrays:
                LOG.warning("No device of the %s is here (any more)", volume)
            limit_s = cfg.CONF.os_brick.flush_timeout
            wrong: set[str] = set()
            if arrays:
                wrong = nvme_detach.find_wrong(
                    self.host, call, presences, force=force, errors=errors
                )
            doomed = nvme_replicas.set_aside(self.host, call, arrays, wrong)
            with errors.context(force, "Ending the array of the %s failed", volume):
                nvme_replicas.end(
                    self.host,
                    call,
                    volume,
                    {array: one for array, one in arrays.items() if array not in doomed},
                    {} if doomed else {one: disks[one] for one in disks if one not in wrong},
                    writable=self._is_writable(presences, wrong),
                    force=force,
                    errors=errors,
                    flush_limit_s=limit_s,
                )
            nvme_detach.detach(
                self.host,
                call,
                presences,
                force=force,
                errors=errors,
                flush_limit_s=limit_s,
                # A single leg is handed out as it is: what has made an array of it may be udev.
                flush=not arrays or volume.is_replicated is None,
            )
            if force and arrays:
                # Without its legs an array that hung can be stopped. To stop one writes it out.
                later = call.later(f"end of {call.operation}", _UNDO_LIMIT_S)
                left = {head for head in wrong if self.host.sysfs.exists("block", head)}
                spared = doomed if left else []
                here = nvme_replicas.instances(self.host, disks)
                same = [head for head, instance in here.items() if instance == disks[head]]
                nvme_replicas.stop_unused(self.host, later, same, spared, arrays)

    def _present(
        self,
        call: Call,
        volume: NvmeVolume,
        path_used: str,
        *,
        force: bool,
        errors: exception.ExceptionChainer,
    ) -> list[Presence]:
        """Return what of a volume is here, to detach it.

        :param errors: with ``force``, what could not be found out.
        """
        identity = HostIdentity()
        with errors.context(force, "Who this host is for NVMe could not be read"):
            identity = self.host.nvme.read_identity(call)
        presences = nvme_presence.find_volume(self.host, call, volume, identity, path_used)
        for presence in presences:
            with errors.context(force, "Whether the %s is here is not known", presence.target):
                if presence.doubt is not None:
                    raise presence.doubt
        return presences

    def _is_device_of(self, path: str, connection_properties: Mapping[str, Any]) -> bool:
        volume = NvmeVolume.parse(connection_properties)
        call = Call(f"look for {volume}", self.host.clock, _HELPER_LIMIT_S)
        identity = self.host.nvme.read_identity(call)
        presences = nvme_presence.find_volume(self.host, call, volume, identity, path)
        heads = [head for presence in presences for head in presence.heads]
        ours = (*heads, *md.find_array(self.host.sysfs, heads))
        return nodes.kernel_name(self.host, path) in ours

    def _is_writable(self, presences: Sequence[Presence], wrong: Collection[str]) -> bool:
        return any(
            nvme_namespaces.is_accessible(self.host.sysfs, one)
            for presence in presences
            for one in presence.namespaces
            if one.head not in wrong
        )

    @staticmethod
    def _path_used(connection_properties: Mapping[str, Any], device_info: Any) -> str:
        path = utils.get_dev_path(connection_properties, device_info)
        return path if isinstance(path, str) else ""

    @staticmethod
    def _raise_doubt(presences: Sequence[Presence]) -> None:
        """Raise what keeps us from saying that nothing of a volume is here, if anything does."""
        for presence in presences:
            if presence.doubt is not None:
                raise presence.doubt

    # -- size, paths --------------------------------------------------------------------------
    @utils.trace
    @utils.connect_volume_undo_prepare_result
    def extend_volume(self, connection_properties: dict[str, Any]) -> int | None:
        """Take notice of a volume's new size and return it in bytes.

        :raises VolumeDeviceNotFound: it is not here.
        :raises BrickException: the kernel does not come to show the size that the storage tells.
        """
        volume = NvmeVolume.parse(connection_properties)
        with (
            self._public_call(f"Extend of {volume}") as call,
            self.host.locks.held(call, volume.lock_names),
        ):
            identity = self.host.nvme.read_identity(call)
            path_used = self._path_used(connection_properties, None)
            everywhere = nvme_presence.find_volume(
                self.host, call, volume, identity, path_used, trusting=False
            )
            presences = [one for one in everywhere if one.namespaces]
            if not presences:
                self._raise_doubt(everywhere)
                raise exception.VolumeDeviceNotFound(
                    device=connection_properties.get("device_path") or str(volume)
                )
            sizes = [
                nvme_resize.extend(self.host, call, presence.namespaces) for presence in presences
            ]
            legs = [head for presence in presences for head in presence.heads]
            if nvme_replicas.is_array(self.host, volume, legs):
                return nvme_replicas.grow(self.host, call, volume, legs)
            return sizes[0]

    @staticmethod
    def get_search_path() -> str:
        """Return the directory of device nodes."""
        return DEV_SEARCH_PATH

    @utils.trace
    def get_volume_paths(
        self,
        connection_properties: dict[str, Any] | NVMeOFConnProps,
        device_info: Any = None,
    ) -> list[str]:
        """Return the paths of a volume's device that are here; changes nothing."""
        if isinstance(connection_properties, NVMeOFConnProps):
            connection_properties = connection_properties.properties
        return self._volume_paths(connection_properties, device_info)

    @utils.connect_volume_undo_prepare_result
    def _volume_paths(
        self, connection_properties: Mapping[str, Any], device_info: Any
    ) -> list[str]:
        volume = NvmeVolume.parse(connection_properties)
        path_used = self._path_used(connection_properties, device_info)
        call = Call(f"paths of {volume}", self.host.clock, _HELPER_LIMIT_S)
        identity = self.host.nvme.read_identity(call)
        presences = nvme_presence.find_volume(self.host, call, volume, identity, path_used)
        heads = [head for presence in presences for head in presence.heads]
        if not heads:
            self._raise_doubt(presences)
        if volume.alias and nvme_replicas.is_array(self.host, volume, heads):
            named = nodes.kernel_name(self.host, volume.md_path)
            there = named in nvme_replicas.arrays_of(self.host, volume, heads)
            return [volume.md_path] if there else []
        return [f"/dev/{head}" for head in heads if self.host.dev.exists(head)]

    # -- programs -------------------------------------------------------------------------------
    def run_nvme_cli(self, nvme_command: Sequence[str], **kwargs: Any) -> tuple[str, str]:
        """Run ``nvme`` with these words as root and return what it printed, ``(stdout, stderr)``.

        :raises ProcessExecutionError: it failed.
        """
        out, err = self._execute(
            "nvme", *nvme_command, run_as_root=True, root_helper=self._root_helper, **kwargs
        )
        return out, err

    def rescan(self, controller_name: str) -> None:
        """Have the kernel look for namespaces of a controller (``"nvme0"``).

        :raises CommandExecutionFailed: it could not be told to.
        """
        command = ("ns-rescan", DEV_SEARCH_PATH + controller_name)
        try:
            self.run_nvme_cli(command)
        except (OSError, processutils.ProcessExecutionError) as exc:
            raise exception.CommandExecutionFailed(cmd=" ".join(("nvme", *command))) from exc


@functools.lru_cache(maxsize=4)
def _facts(root_helper: str | None) -> nvme_identity.Facts:
    """Return what this process has learnt of the host."""
    return nvme_identity.Facts()
