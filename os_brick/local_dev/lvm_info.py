# SPDX-License-Identifier: Apache-2.0
"""What LVM reports as callers of :class:`os_brick.local_dev.lvm.LVM` know it: dictionaries, GiB."""

from __future__ import annotations

from typing import Any

from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from os_brick import opts
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.doors import HasHost
from os_brick.local_dev import lvm_sizes
from os_brick.local_dev.lvm_reports import LogicalVolume, PhysicalVolume, VolumeGroup
from os_brick.local_dev.lvm_tools import Tools

LOG = logging.getLogger(__name__)


def default_tools(root_helper: str | None) -> Tools:
    """LVM's programs, run by the library's own function."""
    return Tools(HasHost(root_helper).host)


def reading(tools: Tools, subject: str = "LVM") -> Call:
    """A call that only looks: it has a deadline, and nothing that is worth a line in the log."""
    return Call(f"Report of {subject}", tools.host.clock, cfg.CONF[opts.GROUP].call_timeout)


def volumes(tools: Tools, vg_name: str | None, name: str | None) -> list[dict[str, str]]:
    """Volumes of a group, or one of them; empty if there is no such group or volume."""
    call = reading(tools)
    try:
        if vg_name and name:
            found = tools.find_volumes(call, vg_name, name)
        else:
            found = tools.volumes(call, vg_name or None)
    except processutils.ProcessExecutionError:
        if not vg_name or tools.find_groups(call, vg_name):
            raise
        found = []
    if not found:
        LOG.info("Logical Volume not found: group %s, name %s", vg_name, name)
    return [
        {"vg": one.group, "name": one.name, "size": lvm_sizes.gib_text(one.size)} for one in found
    ]


def disks(tools: Tools, vg_name: str | None) -> list[dict[str, Any]]:
    """Disks of a group, or all."""
    # Filtered here: pvs takes disks, not groups.
    return [
        _disk(one) for one in tools.disks(reading(tools)) if vg_name is None or one.group == vg_name
    ]


def _disk(disk: PhysicalVolume) -> dict[str, Any]:
    return {
        "vg": disk.group,
        "name": disk.name,
        "size": lvm_sizes.gib(disk.size),
        "available": 0.0 if disk.missing else lvm_sizes.gib(disk.free),
    }


def group(one: VolumeGroup) -> dict[str, Any]:
    """One group."""
    return {
        "name": one.name,
        "size": lvm_sizes.gib(one.size),
        "available": lvm_sizes.gib(one.free),
        "lv_count": one.volumes,
        "uuid": one.uuid,
    }


def free(pool: LogicalVolume) -> float | None:
    """What is free of a pool; None, with a warning, if that is not known."""
    if pool.free is None:
        LOG.warning(
            "How full thin pool %s/%s is cannot be found out: it is not active",
            pool.group,
            pool.name,
        )
    return pool.free
