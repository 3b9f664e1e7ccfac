# SPDX-License-Identifier: Apache-2.0
"""What needs root on NVMe, behind one interface: by privileged verbs, or by programs.

:class:`PrivilegedNvme` calls the library's own verbs and starts no program. Where a service
supplies its own ``execute`` (sudo, nsenter, a container), everything has to go through that:
:class:`ProgramNvme` does the same by nvme-cli and coreutils, in the service's name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from oslo_concurrency import processutils

from os_brick import utils
from os_brick.initiator.linux import nvme, nvme_identify
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.nvme import CONTROLLERS, Controller
from os_brick.initiator.linux.nvme_ids import NamespaceIds
from os_brick.initiator.linux.programs import Programs, Result
from os_brick.initiator.linux.sysfs import Tree

#: What these may raise: the kernel's answer, or a program's.
FAILURES = (OSError, processutils.ProcessExecutionError)


_DELETE_LIMIT_S = 120.0
_ASK_LIMIT_S = 15.0
_NAMESPACE, _ACTIVE, _DESCRIPTORS = 0, 2, 3
# Generic command status (NVM Express base specification): Invalid Command Opcode, Invalid Field in
# Command, Invalid Namespace or Format. The mask leaves the status code with its type: the same code
# of another type means something else (302h: the namespace is inaccessible by this path).
_NOT_KNOWN = frozenset({0x001, 0x002})
_NO_SUCH_NAMESPACE = 0x00B
_STATUS_AND_TYPE = 0x7FF
_NAMES_IN_ONE_LIST = 1024
_HOST_NQN, _HOST_ID = "hostnqn", "hostid"
_FOLDER = "/etc/nvme"
_PRODUCT_UUID = "/sys/class/dmi/id/product_uuid"


class NotSupported(OSError):
    """The subsystem knows no such question: those before NVMe 1.3 have no list of identifiers."""


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who this host says it is; None for what is not settled yet."""

    nqn: str | None = None
    host_id: str | None = None


class NvmeChanges(Protocol):
    """Changes and questions as root. All raise one of :data:`FAILURES`."""

    def rescan(self, call: Call, controller: Controller) -> None:
        """Have the kernel begin to look for new, changed and gone namespaces of a controller."""

    def delete(self, call: Call, controller: Controller) -> None:
        """Disconnect this very controller; nothing happens if it is gone."""

    def describe(self, call: Call, controller: Controller, nsid: int) -> NamespaceIds | None:
        """Ask the subsystem for a namespace's identifiers; None if it has no such namespace.

        :raises NotSupported: it does not tell them of any.
        """

    def list_active(self, call: Call, controller: Controller) -> set[int]:
        """Ask the subsystem for the numbers of all namespaces that this host may use."""

    def read_size(self, call: Call, controller: Controller, nsid: int) -> int | None:
        """Ask the subsystem for a namespace's size in bytes; None if it does not tell."""

    def read_block(self, call: Call, name: str) -> None:
        """Read a block of a disk, past the page cache."""

    def read_identity(self, call: Call) -> HostIdentity:
        """Return who this host is, as stored; changes nothing."""

    def make_nqn(self, call: Call, uuid: str) -> str:
        """Make and store a host NQN, unless there is one by now, and return it.

        :param uuid: to make it from; empty for what nvme-cli uses or makes.
        """

    def make_host_id(self, call: Call, host_id: str) -> str:
        """Store a host id, unless there is one by now, and return the one that is stored."""

    def system_uuid(self, call: Call) -> str:
        """Return the machine's UUID as its firmware states it; empty if it states none."""


class PrivilegedNvme:
    """The library's own verbs: :mod:`os_brick.privileged.nvme` and ``nvmeof``."""

    def rescan(self, call: Call, controller: Controller) -> None:
        self._write(call, controller, "rescan_controller", _ASK_LIMIT_S)

    def delete(self, call: Call, controller: Controller) -> None:
        self._write(call, controller, "delete_controller", _DELETE_LIMIT_S)

    def _write(self, call: Call, controller: Controller, attribute: str, limit_s: float) -> None:
        from os_brick.privileged import nvme as verbs

        with call.step(f"{attribute} {controller}") as step:
            if not verbs.write_attribute(
                controller.name, controller.instance, attribute, call.within(limit_s)
            ):
                step.outcome = "was gone"

    def describe(self, call: Call, controller: Controller, nsid: int) -> NamespaceIds | None:
        with call.step(f"identify {controller} namespace {nsid}") as step:
            status, data = self._ask(call, controller, _DESCRIPTORS, nsid)
            if status and not _is_there(status, controller):
                step.outcome = "no such namespace"
                return None
            _check(status, f"{controller} does not tell who namespace {nsid} is")
            found = nvme_identify.parse_descriptors(data, nsid)
            step.outcome = str(found)
            return found

    def list_active(self, call: Call, controller: Controller) -> set[int]:
        with call.step(f"list namespaces of {controller}"):
            found: set[int] = set()
            last = 0
            while True:
                status, data = self._ask(call, controller, _ACTIVE, last)
                _check(status, f"{controller} does not tell its namespaces")
                numbers = nvme_identify.parse_list(data)
                found.update(numbers)
                if len(numbers) < _NAMES_IN_ONE_LIST:
                    return found
                last = numbers[-1]

    def read_size(self, call: Call, controller: Controller, nsid: int) -> int | None:
        with call.step(f"identify size of {controller} namespace {nsid}"):
            status, data = self._ask(call, controller, _NAMESPACE, nsid)
            _check(status, f"{controller} does not tell the size of namespace {nsid}")
            return nvme_identify.parse_size(data)

    @staticmethod
    def _ask(call: Call, controller: Controller, what: int, nsid: int) -> tuple[int, bytes]:
        from os_brick.privileged import nvme as verbs

        limit_s = call.within(_ASK_LIMIT_S)
        answer = verbs.identify(controller.name, controller.instance, what, nsid, limit_s)
        return int(answer["status"]), bytes(answer["data"])

    def read_block(self, call: Call, name: str) -> None:
        from os_brick.privileged import nvme as verbs

        with call.step(f"read {name}"):
            verbs.read_block(name, call.within(_ASK_LIMIT_S))

    def read_identity(self, call: Call) -> HostIdentity:
        return HostIdentity(
            _first_word(utils.HOST_NQN_FILE) or None, _first_word(utils.HOST_ID_FILE) or None
        )

    def make_nqn(self, call: Call, uuid: str) -> str:
        with call.step("make the host NQN"):
            return utils.get_host_nqn(uuid or None) or ""

    def make_host_id(self, call: Call, host_id: str) -> str:
        with call.step("make the NVMe host id"):
            return utils.get_nvme_host_id(host_id) or ""

    def system_uuid(self, call: Call) -> str:
        from os_brick.privileged import nvmeof

        return str(nvmeof.get_system_uuid())


def _is_there(status: int, controller: Controller) -> bool:
    """Tell whether there may be a namespace of which a subsystem told nothing but a status.

    :raises NotSupported: it tells of none.
    """
    reason = status & _STATUS_AND_TYPE
    if reason in _NOT_KNOWN:
        raise NotSupported(
            f"{controller} has no list of a namespace's identifiers (NVMe status {status:#x})"
        )
    return reason != _NO_SUCH_NAMESPACE


def _check(status: int, what: str) -> None:
    if status:
        raise OSError(f"{what} (NVMe status {status:#x})")


def _first_word(path: str) -> str:
    """Return the text of a small file; empty if there is none."""
    from os_brick.privileged import nvmeof

    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""
    except PermissionError:  # nvme-cli may have made it under a strict umask
        return str(nvmeof.read_stored(os.path.basename(path)))


class ProgramNvme:
    """The same by programs, for an execute function that a service supplied."""

    def __init__(self, programs: Programs, sysfs: Tree) -> None:
        self._programs = programs
        self._sysfs = sysfs

    def _nvme(self, call: Call, *words: str) -> str:
        return self._programs.run(call, "nvme", *words, limit_s=_ASK_LIMIT_S).check().out

    def rescan(self, call: Call, controller: Controller) -> None:
        if nvme.is_there(self._sysfs, controller):
            self._nvme(call, "ns-rescan", controller.path)

    def delete(self, call: Call, controller: Controller) -> None:
        if not nvme.is_there(self._sysfs, controller):
            return
        words = ("nvme", "disconnect", "-d", controller.path)
        result = self._programs.run(call, *words, limit_s=_DELETE_LIMIT_S)
        # nvme-cli 2.x ends with 0 whatever came of it, and 1.x knows nothing of some names: only
        # sysfs proves that it is gone.
        if result.code is None or not nvme.is_there(self._sysfs, controller):
            return
        path = self._sysfs.path(CONTROLLERS, controller.name, "delete_controller")
        self._programs.run(call, "tee", "-a", path, limit_s=_DELETE_LIMIT_S, stdin="1").check()

    def describe(self, call: Call, controller: Controller, nsid: int) -> NamespaceIds | None:
        words = ("nvme", "ns-descs", controller.path, "-n", str(nsid))
        result = self._programs.run(call, *words, limit_s=_ASK_LIMIT_S)
        # Exit codes do not tell: those of 1.x are the status cut to a byte, of 2.x always 1.
        status = nvme_identify.parse_status(f"{result.err}\n{result.out}")
        if result.code and status and not _is_there(status, controller):
            return None
        return nvme_identify.parse_described(result.check().out, nsid)

    def list_active(self, call: Call, controller: Controller) -> set[int]:
        return set(nvme_identify.parse_listed(self._nvme(call, "list-ns", controller.path)))

    def read_size(self, call: Call, controller: Controller, nsid: int) -> int | None:
        words = ("id-ns", controller.path, "-n", str(nsid), "-o", "json")
        return nvme_identify.parse_id_ns(self._nvme(call, *words))

    def read_block(self, call: Call, name: str) -> None:
        # 4096 bytes fit the blocks of every namespace, which direct I/O has to respect.
        words = ("dd", f"if=/dev/{name}", "of=/dev/null", "bs=4096", "count=1", "iflag=direct")
        self._programs.run(call, *words, limit_s=_ASK_LIMIT_S).check()

    def read_identity(self, call: Call) -> HostIdentity:
        return HostIdentity(
            self._stored(call, _HOST_NQN) or None, self._stored(call, _HOST_ID) or None
        )

    def _stored(self, call: Call, name: str) -> str | None:
        """Return what a file says; None if it is missing.

        :raises ProcessExecutionError: it could not be read.
        """
        path = f"{_FOLDER}/{name}"
        result = self._programs.run(call, "cat", path, limit_s=_ASK_LIMIT_S)
        # What runs programs for the service may miss something too, and fail with the same code.
        if result.code and path in result.err and "No such file or directory" in result.err:
            return None
        return result.check().out.strip()

    def make_nqn(self, call: Call, uuid: str) -> str:
        nqn = f"nqn.2014-08.org.nvmexpress:uuid:{uuid}" if uuid else self._cli_nqn(call)
        return self._store(call, _HOST_NQN, nqn)

    def make_host_id(self, call: Call, host_id: str) -> str:
        return self._store(call, _HOST_ID, host_id)

    def _cli_nqn(self, call: Call) -> str:
        """Return the NQN that nvme-cli uses, else a new one: live connections must keep theirs."""
        shown = self._programs.run(call, "nvme", "show-hostnqn", limit_s=_ASK_LIMIT_S)
        if shown.code == 0 and shown.out.strip():
            return shown.out.strip()
        return self._nvme(call, "gen-hostnqn").strip()

    def _store(self, call: Call, name: str, text: str) -> str:
        """Write a file whole or not at all, never over one that has a value or cannot be read;
        return its text."""
        path, staged = f"{_FOLDER}/{name}", f"{_FOLDER}/.{name}.{uuid4().hex}"

        def run(*words: str, stdin: str | None = None) -> Result:
            return self._programs.run(call, *words, limit_s=_ASK_LIMIT_S, stdin=stdin)

        run("mkdir", "-p", _FOLDER).check()
        try:
            run("tee", staged, stdin=f"{text}\n").check()
            linked = run("ln", staged, path)  # fails where it would replace
            if linked.code == 0:
                return text
            stored = self._stored(call, name)
            if stored is None:
                linked.check()
            if not stored:
                run("mv", "-f", staged, path).check()
            return stored or text
        finally:
            run("rm", "-f", staged)

    def system_uuid(self, call: Call) -> str:
        result = self._programs.run(call, "cat", _PRODUCT_UUID, limit_s=_ASK_LIMIT_S)
        if result.code == 0 and result.out.strip():
            return result.out.strip()
        result = self._programs.run(call, "dmidecode", "-ssystem-uuid", limit_s=_ASK_LIMIT_S)
        return result.out.strip() if result.code == 0 else ""
