# SPDX-License-Identifier: Apache-2.0
"""The privileged verbs for NVMe of a fake host."""

from __future__ import annotations

import errno
import os
from uuid import uuid4

from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.nvme import Controller
from os_brick.initiator.linux.nvme_changes import HostIdentity, NotSupported
from os_brick.initiator.linux.nvme_ids import NamespaceIds
from os_brick.testing import block
from os_brick.testing import nvme as model
from os_brick.testing.block import Devices
from os_brick.testing.nvme_cli import Identity
from os_brick.testing.nvme_storage import NamespaceUnit
from os_brick.testing.world import World

_LIMIT_S = 15.0


class FakeNvme:
    """Stands in for :class:`os_brick.initiator.linux.nvme_changes.PrivilegedNvme`."""

    def __init__(
        self, world: World, layer: model.NvmeLayer, devices: Devices, identity: Identity
    ) -> None:
        self._world = world
        self._layer = layer
        self._devices = devices
        self._identity = identity

    def _find(self, controller: Controller) -> model.Controller | None:
        """Return this very controller, not a later one of its name."""
        with self._world.lock:
            shown = self._world.sysfs.instance("class/nvme-fabrics/ctl", controller.name)
            return self._layer.find(controller.name) if shown == controller.instance else None

    def rescan(self, call: Call, controller: Controller) -> None:
        with call.step(f"rescan {controller}"):
            self._change("rescan", controller)
            found = self._find(controller)
            if found is not None:
                with self._world.lock:
                    self._layer.scan(found)

    def delete(self, call: Call, controller: Controller) -> None:
        with call.step(f"delete {controller}"):
            self._change("delete", controller)
            found = self._find(controller)
            if found is not None:
                with self._world.lock:
                    self._layer.set_state(found, "deleting")
                usual = self._world.delays.delete_s
                self._world.spend(self._world.faults.slow_writes.get("delete_controller", usual))
                with self._world.lock:
                    self._layer.delete(found)

    def _change(self, kind: str, controller: Controller) -> None:
        self._world.record(f"{kind}_controller", controller.name)
        error = self._world.faults.failing_writes.get(f"{kind}_controller")
        if error:
            raise OSError(error, os.strerror(error), controller.name)

    # -- questions -------------------------------------------------------------------------
    def _ask(self, call: Call, controller: Controller) -> model.Controller:
        error = self._world.faults.failing_writes.get("identify")
        if error:
            raise OSError(error, os.strerror(error), controller.name)
        found = self._find(controller)
        if found is None:
            raise OSError(errno.ENODEV, f"{controller} is another controller now")
        if not self._world.wait_for(found.answers, call.within(_LIMIT_S)):
            raise TimeoutError(errno.ETIMEDOUT, f"Identify of {controller}")
        return found

    def _unit(self, call: Call, controller: Controller, nsid: int) -> NamespaceUnit | None:
        found = self._ask(call, controller)
        return found.subsystem.shown(found.index).get(nsid)

    def describe(self, call: Call, controller: Controller, nsid: int) -> NamespaceIds | None:
        self._world.record("identify", controller.name, str(nsid))
        if not self._ask(call, controller).subsystem.describes:
            raise NotSupported(f"{controller} has no such list (NVMe status 0x4002)")
        unit = self._unit(call, controller, nsid)
        return None if unit is None else NamespaceIds(unit.uuid, unit.nguid, nsid)

    def list_active(self, call: Call, controller: Controller) -> set[int]:
        found = self._ask(call, controller)
        return set(found.subsystem.shown(found.index))

    def read_size(self, call: Call, controller: Controller, nsid: int) -> int | None:
        unit = self._unit(call, controller, nsid)
        return None if unit is None else unit.size

    def read_block(self, call: Call, name: str) -> None:
        self._world.record("read", name)
        device = self._devices.get(f"/dev/{name}")
        if not self._world.wait_for(
            lambda: device.storage()[0] != block.HANGS, call.within(_LIMIT_S)
        ):
            raise TimeoutError(errno.ETIMEDOUT, f"read of {name}")
        if device.storage()[0] != block.ALIVE:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    # -- identity --------------------------------------------------------------------------
    def read_identity(self, call: Call) -> HostIdentity:
        return HostIdentity(self._identity.nqn or None, self._identity.host_id or None)

    def make_nqn(self, call: Call, uuid: str) -> str:
        self._world.record("identity", "hostnqn", uuid)
        made = f"nqn.2014-08.org.nvmexpress:uuid:{uuid or uuid4()}"
        self._identity.files["hostnqn"] = self._identity.nqn or made
        return self._identity.nqn

    def make_host_id(self, call: Call, host_id: str) -> str:
        self._world.record("identity", "hostid", host_id)
        self._identity.files["hostid"] = self._identity.host_id or host_id
        return self._identity.host_id

    def system_uuid(self, call: Call) -> str:
        return self._identity.system_uuid
