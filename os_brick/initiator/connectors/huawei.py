# SPDX-License-Identifier: Apache-2.0
"""Huawei SDS Hypervisor: volumes attached by its own command-line tool."""

from __future__ import annotations

import os
import subprocess  # noqa: TID251 - for the class of an error that foreign functions raise
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, executor, utils
from os_brick.initiator.connectors import base
from os_brick.initiator.linux import block, nodes
from os_brick.initiator.linux.call import Call
from os_brick.initiator.vendors import device

LOG = logging.getLogger(__name__)

_DEFAULT_CLI = "/usr/local/bin/sds/sds_cli"
_CLI_VARIABLE = "HUAWEISDSHYPERVISORCLI_PATH"
_CLI_LIMIT_S = 120.0
_NODE_S = 15.0
_UNDO_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True)
class CliAnswer:
    """What the tool printed.

    :ivar code: None if it printed none.
    :ivar address: the volume's device; empty if it named none.
    """

    code: int | None = None
    description: str = ""
    address: str = ""

    def __str__(self) -> str:
        if self.code is None:
            return "None (the tool printed no result)"
        return f"{self.code} ({self.description})" if self.description else str(self.code)


def parse_answer(text: str | None) -> CliAnswer:
    """Return what the tool's output says; lines that it is not known for are left out."""
    values: dict[str, str] = {}
    for line in (text or "").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() in ("ret_code", "ret_desc", "dev_addr"):
            values[name.strip()] = value.strip()
    code = values.get("ret_code", "")
    number = int(code) if code.removeprefix("-").isdecimal() else None
    return CliAnswer(number, values.get("ret_desc", ""), values.get("dev_addr", ""))


@dataclass(frozen=True, slots=True)
class SdsVolume:
    """A volume as connection properties name it."""

    id: str

    @property
    def lock_names(self) -> list[str]:
        """Names of the locks that calls for the same volume have in common."""
        return [f"huawei-sds-{self.id}"]

    def __str__(self) -> str:
        return f"Huawei SDS volume {self.id}"

    @classmethod
    def parse(cls, properties: Mapping[str, Any]) -> SdsVolume:
        """Return the volume that connection properties name.

        :raises InvalidParameterValue: they name none.
        """
        number = properties.get("volume_id")
        # A word that begins with a dash would be an option of the tool.
        if not isinstance(number, str) or not number or number.startswith("-"):
            raise exception.InvalidParameterValue(
                err=f"volume_id is {number!r} in the connection properties; expected is its id."
            )
        return cls(number)


class HuaweiStorHyperConnector(base.BaseLinuxConnector):
    """Attaches volumes of Huawei's SDS Hypervisor."""

    attached_success_code = 0
    has_been_attached_code = 50151401
    attach_mnid_done_code = 50151405
    vbs_unnormal_code = 50151209
    not_mount_node_code = 50155007
    iscliexist = True

    def __init__(
        self, root_helper: str | None, driver: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        execute: executor.ExecuteFunction | None = kwargs.pop("execute", None)
        super().__init__(root_helper, driver, execute, *args, **kwargs)
        self.cli_path = os.environ.get(_CLI_VARIABLE) or _DEFAULT_CLI
        if not os.path.isfile(self.cli_path):
            self.iscliexist = False
            LOG.error("SDS CLI file not found, path: %s", self.cli_path)

    @staticmethod
    def get_connector_properties(
        root_helper: str | None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Return nothing: the tool knows its host."""
        return {}

    # -- attach, detach -----------------------------------------------------------------------
    @utils.trace
    def connect_volume(self, connection_properties: dict[str, Any]) -> dict[str, Any]:
        """Attach a volume.

        :returns: ``{"type": "block", "path": its device}``.
        :raises InvalidParameterValue: the properties name no volume; nothing was changed.
        :raises VolumeDeviceNotFound: the device that the tool names is not there; likewise.
        :raises BrickException: the tool refused; what this call attached is detached.
        """
        volume = SdsVolume.parse(connection_properties)
        with (
            self._public_call(f"Attach of {volume}") as call,
            self.host.locks.held(call, volume.lock_names),
        ):
            before = self._cli(call, "querydev", volume).code
            answer = CliAnswer()
            try:
                answer = self._cli(call, "attach", volume)
                here = (self.has_been_attached_code, self.attach_mnid_done_code)
                if answer.code not in (self.attached_success_code, *here):
                    raise exception.BrickException(f"Attach volume failed, error code is {answer}")
                path = self._query(call, volume)
                self._wait_for_node(call, path)
            except (OSError, exception.BrickException):
                # Without an answer it may have been attached all the same.
                unclear = answer.code is None and before not in self._may_be_here
                if answer.code == self.attached_success_code or unclear:
                    self._undo(call, volume)
                raise
        return {"type": "block", "path": path}

    def _wait_for_node(self, call: Call, path: str) -> None:
        here = call.wait_until(
            lambda: nodes.real_node(self.host, path) is not None,
            what=f"node {path}",
            limit_s=_NODE_S,
        )
        # Whoever writes to a path that is not there writes a file below /dev.
        if not here and not self.has_own_execute:  # it may lead to where other files are
            raise exception.VolumeDeviceNotFound(device=path)

    @property
    def _may_be_here(self) -> tuple[int | None, ...]:
        """What the tool answers about a volume that is here, or of which it cannot tell."""
        return (0, None, self.vbs_unnormal_code)

    def _undo(self, call: Call, volume: SdsVolume) -> None:
        later = call.later(f"{call.operation}, undone", _UNDO_LIMIT_S)
        try:
            self._cli(later, "detach", volume)
        except exception.BrickException as exc:
            LOG.warning("Leftovers may remain: %s", exc)

    @utils.trace
    def disconnect_volume(
        self,
        connection_properties: dict[str, Any],
        device_info: Any,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Detach a volume. When it returns without ``force``, its data is on the storage.

        :raises InvalidParameterValue: the properties name no volume; nothing was changed.
        :raises DeviceInUse: somebody uses it (without ``force``); nothing was changed.
        :raises ProcessExecutionError: its data could not be written out (without ``force``).
        :raises BrickException: the tool refused.
        :raises ExceptionChainer: what failed (with ``force``, without ``ignore_errors``).
        """
        volume = SdsVolume.parse(connection_properties)
        with self._detaching(volume, force, ignore_errors) as (call, errors):
            used = utils.get_dev_path(connection_properties, device_info)
            here = self._find(call, volume, used, force, errors)
            limit_s = cfg.CONF.os_brick.flush_timeout
            device.settle(self.host, call, here, force=force, errors=errors, limit_s=limit_s)
            name = nodes.kernel_name(self.host, used) if isinstance(used, str) else None
            if not here and name is not None:
                # What the tool answers need not mean that it is not here. Should the name be
                # another's by now, its data is on the storage a little earlier.
                with errors.context(force, "Writing out %s failed, its data may be lost", used):
                    block.sync(self.host, call, f"/dev/{name}", limit_s)
            answer = self._cli(call, "detach", volume)
            if answer.code not in (
                self.attached_success_code,
                self.vbs_unnormal_code,
                self.not_mount_node_code,
            ):
                raise exception.BrickException(f"Disconnect_volume failed, error code is {answer}")

    def _find(
        self,
        call: Call,
        volume: SdsVolume,
        used: Any,
        force: bool,
        errors: exception.ExceptionChainer,
    ) -> str:
        """Return the path of a volume to detach; empty if it is not here, or not known to be.

        The tool's word counts: a path that a caller has kept may be another's by now.

        :param used: the path that the caller has kept.
        :raises BrickException: whether it is here is not known (without ``force``).
        """
        with errors.context(force, "Data of %s may be lost", volume):
            found = self._cli(call, "querydev", volume)
            here = found.address if found.code == 0 else ""
            if found.code == self.vbs_unnormal_code and isinstance(used, str):
                # Its service cannot say it, and will not mind the detach.
                here = used
            if found.code in self._may_be_here and not here:
                raise exception.BrickException(
                    f"Disconnect_volume failed: whether {volume} is here is not known"
                )
            return here
        return ""

    # -- looking ------------------------------------------------------------------------------
    def is_volume_connected(self, volume_name: str) -> bool:
        """Tell whether a volume is attached to this host.

        :raises BrickException: the tool could not be asked.
        """
        volume = SdsVolume(volume_name)
        with self._public_call(f"Look for {volume}") as call:
            return self._cli(call, "querydev", volume).code == 0

    @utils.trace
    def get_volume_paths(self, connection_properties: dict[str, Any]) -> list[str]:
        """Return the device of a volume.

        :raises BrickException: it is not attached here, or the tool could not be asked.
        """
        volume = SdsVolume.parse(connection_properties)
        with self._public_call(f"Look for {volume}") as call:
            answer = self._cli(call, "querydev", volume)
        if answer.code != 0 or not answer.address:
            raise exception.BrickException("Couldn't find a volume.")
        return [answer.address]

    def get_search_path(self) -> None:
        """Return None: volumes have no directory of their own."""
        return

    def get_all_available_volumes(
        self, connection_properties: dict[str, Any] | None = None
    ) -> list[str]:
        """Return an empty list: the tool has no list of volumes."""
        return []

    def extend_volume(self, connection_properties: dict[str, Any]) -> int | None:
        """Refuse: the tool cannot do it.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError

    # -- the tool -----------------------------------------------------------------------------
    def _query(self, call: Call, volume: SdsVolume) -> str:
        answer = self._cli(call, "querydev", volume)
        if answer.code != 0 or not answer.address:
            LOG.error("Query of %s: %s", volume, answer)
            raise exception.BrickException("query attached volume failed or volume not attached.")
        return answer.address

    def _cli(self, call: Call, verb: str, volume: SdsVolume) -> CliAnswer:
        """Run the tool, as the service's own user.

        :raises BrickException: it is not there, or failed.
        """
        if not self.iscliexist:
            raise exception.BrickException(
                "SDS command line doesn't exist, can't execute SDS command."
            )
        words = (self.cli_path, "-c", verb, "-v", volume.id)
        call.check(" ".join(words))
        with call.step(" ".join(words)) as step:
            try:
                # Whatever its exit code: it says its own in what it prints.
                found = self._execute(
                    *words, check_exit_code=False, timeout=call.within(_CLI_LIMIT_S)
                )
            except (
                OSError,
                subprocess.TimeoutExpired,
                processutils.ProcessExecutionError,
            ) as exc:
                raise exception.BrickException(f"SDS command {verb} failed: {exc}") from exc
            answer = parse_answer(found[0] if found else None)
            step.outcome = str(answer)
            return answer
