# SPDX-License-Identifier: Apache-2.0
"""What the encryptors of dm-crypt have in common: a device is opened as a mapping, and the link by
which the volume is used leads to the mapping until it is closed."""

from __future__ import annotations

import abc
import contextlib
import os
import posixpath
from collections.abc import Iterator
from typing import Any

from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, executor, privileged
from os_brick.encryptors import base, commands, link
from os_brick.encryptors import mapping as mappings
from os_brick.encryptors.mapping import Device, Mapping
from os_brick.initiator.linux import block, changes, locking
from os_brick.initiator.linux.call import Call, public_call
from os_brick.initiator.linux.programs import Result

LOG = logging.getLogger(__name__)

_CLOSE_TRIES = 3
# udev opens each new device for moments, to look at it.
_SHORT_USE_S = 10.0
_UNDO_LIMIT_S = 60.0
_STATUS_LIMIT_S = 60.0


class DeviceEncryptor(base.VolumeEncryptor):
    """Opens a block device as a mapping of dm-crypt.

    :ivar symlink_path: the path by which the volume is used.
    :ivar dev_name: name of its mapping.
    :ivar dev_path: the volume's own device, never its mapping.

    :raises VolumeEncryptionNotSupported: the connection has no device on this host.
    """

    #: What the device mapper calls this kind of mapping: ``CRYPT-<kind>…``.
    _kind = ""
    _close_verb = "close"

    def __init__(
        self,
        root_helper: str | None,
        connection_info: dict[str, Any],
        keymgr: Any,
        execute: executor.ExecuteFunction | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(root_helper, connection_info, keymgr, execute, *args, **kwargs)
        self.symlink_path = link.path_of(connection_info)
        self.dev_name = mappings.name_of(self.symlink_path)
        # Volumes that were opened by older releases (bug 1439869).
        multipath_id = (connection_info.get("data") or {}).get("multipath_id")
        for old in (posixpath.basename(self.symlink_path), multipath_id):
            if old and isinstance(old, str) and self._is_crypt_device_available(old):
                self.dev_name = old
                break
        device = self._find_device()
        self.dev_path = device.path if device else os.path.realpath(self.symlink_path)

    # -- for services ----------------------------------------------------------------------
    def attach_volume(self, context: Any, **kwargs: Any) -> None:
        """Open the device and have the volume's path lead to what is decrypted.

        Opening what is open already is success. If it fails, nothing is left open, and the path
        leads where it led.

        :raises ProcessExecutionError: cryptsetup failed; exit code 2: wrong passphrase.
        :raises WrongVolume: there is a mapping of that name on another device.
        :raises DeviceInUse: somebody else uses the device.
        :raises InvalidParameterValue: the path is not a link.
        """
        passphrase = self._get_encryption_key_as_passphrase(context)
        with self._call("Opening", kwargs) as call:
            link.check_ours(self.host, self.symlink_path)
            found = mappings.find(self.host, self.dev_name)
            if found is None:
                found = self._open(call, passphrase, **kwargs)
            if found is not None:
                self._reuse(call, passphrase, found)

    def detach_volume(self, **kwargs: Any) -> None:
        """Close the mapping, and have the volume's path lead to its device again.

        Nothing to do, and success, if it is closed.

        :raises ExecutionTimeout: what was written to it is still not on the storage. It is still
            open then, and the path still leads to it.
        :raises ProcessExecutionError: what was written to it is not known to be on the storage,
            which is told once: it is closed. Or cryptsetup failed; exit code 5: it is still in use,
            the text tells by whom. It is still open then, and the path still leads to it.
        """
        failure: Exception | None = None
        with self._call("Closing", kwargs) as call:
            found = mappings.find(self.host, self.dev_name, thoroughly=True)
            if found is not None and not self._is_mine(found):
                LOG.warning(
                    "%s is not open here: %s belongs to another device and is left alone",
                    self.symlink_path,
                    found.path,
                )
                return
            device = self._find_device(found)
            if found is not None and block.was_written(self.host.sysfs, found.name):
                # With the mapping the kernel forgets that a write to it has failed, and the device
                # below never knew of it: the connector's own write-out would find nothing wrong.
                limit_s = cfg.CONF.os_brick.flush_timeout
                try:
                    block.sync(self.host, call, f"/dev/{found.name}", limit_s)
                except exception.ExecutionTimeout:
                    raise  # it goes on, and has the mapping open
                except processutils.ProcessExecutionError as exc:
                    # Linux has dropped what it could not write: nothing is saved by what stays. On
                    # storage that is dead this fails each time, and no force is known here.
                    failure = exc
            try:
                # An own execute function may see other mappings than we do.
                if found is not None or self.has_own_execute:
                    self._close_volume(call=call, **kwargs)
                if device is not None:
                    link.point_back(self.host, call, self.symlink_path, self.dev_name, device)
            finally:
                if failure is not None:  # first of all: nobody will be told of it again
                    raise failure

    # -- for subclasses, and for services that call them all the same ----------------------
    @abc.abstractmethod
    def _open_volume(self, passphrase: str, **kwargs: Any) -> None:
        """Make the mapping.

        :raises ProcessExecutionError: cryptsetup failed.
        """

    def _close_volume(self, **kwargs: Any) -> None:
        """Remove the mapping; none is success.

        :raises ProcessExecutionError: cryptsetup failed.
        """
        with self._call("Closing", kwargs) as call:
            result = self._close(call)
            if result.code not in (0, commands.WRONG_DEVICE):
                raise self._still_open(result)

    def _is_crypt_device_available(self, dev_name: str) -> bool:
        """Tell whether a mapping of cryptsetup has this name and is active."""
        if not self.host.dev.exists("mapper", dev_name):
            return False
        found = mappings.find(self.host, dev_name)
        if found is not None:
            return found.is_crypt
        call = Call(f"look at {dev_name}", self.host.clock, _STATUS_LIMIT_S)
        result = commands.status(self.host, call, dev_name)
        if result.code not in (0, commands.WRONG_PARAMETERS, commands.WRONG_DEVICE):
            LOG.warning("The state of %s could not be found out: %s", dev_name, result.summary)
        return result.code == 0

    # -- calls -----------------------------------------------------------------------------
    @contextlib.contextmanager
    def _call(self, what: str, kwargs: dict[str, Any]) -> Iterator[Call]:
        """Give the block the call that is under way (``call`` among the keywords, taken out of
        them), or else one of its own, under the volume's lock."""
        call = kwargs.pop("call", None)
        if isinstance(call, Call):
            yield call
            return
        operation = f"{what} of encrypted volume {self.symlink_path}"
        names = [f"mapping {self.dev_name}", f"encrypted {self.dev_path}"]
        limit_s = cfg.CONF.os_brick.call_timeout
        with (
            public_call(operation, self.host.clock, limit_s) as call,
            # Without a directory for locks, cryptsetup's own checks have to do.
            locking.held_if_possible(self.host.locks, call, names),
        ):
            yield call

    def _find_device(self, opened: Mapping | None = None) -> Device | None:
        """Return the volume's own device as it is now."""
        opened = opened or mappings.find(self.host, self.dev_name)
        return link.find_device(self.host, self.symlink_path, opened)

    # -- opening ---------------------------------------------------------------------------
    def _open(self, call: Call, passphrase: str, **kwargs: Any) -> Mapping | None:
        """Open the device and point the link to it.

        :returns: None; or, with nothing done, a mapping of the name that is there nevertheless.
        """
        device = self._find_device()
        if device is not None:
            self.dev_path = device.path
            users = block.read_users(self.host, device.name)
            # Its link in /dev/mapper may be missing.
            found = mappings.find(self.host, self.dev_name, thoroughly=True) if users else None
            if found is not None:
                return found
            if users:
                raise exception.DeviceInUse(
                    f"{device.path} is in use: {'; '.join(users)}. It was not opened."
                )
        done = False
        try:
            try:
                self._open_volume(passphrase, call=call, **kwargs)
            except processutils.ProcessExecutionError as exc:
                found = mappings.find(self.host, self.dev_name, thoroughly=True)
                if exc.exit_code == commands.BUSY and found is not None:
                    return found
                raise
            done = True
            link.point_to_mapping(self.host, call, self.symlink_path, self.dev_name)
        except Exception:
            self._undo(call, device, opened=done)
            raise
        return None

    def _reuse(self, call: Call, passphrase: str, found: Mapping) -> None:
        """Use the mapping that is there, if it is this volume's.

        :raises WrongVolume: it is not.
        """
        device = self._find_device(found)
        self._check_mine(found, device)
        self.dev_path = device.path if device else self.dev_path
        self._check_passphrase(call, passphrase)
        LOG.info("%s is open already as %s", self.symlink_path, found.path)
        if not link.leads_to(self.host, self.symlink_path, self.dev_name):
            link.point_to_mapping(self.host, call, self.symlink_path, self.dev_name)

    def _check_mine(self, found: Mapping, device: Device | None) -> None:
        if device is None or not mappings.sits_on(self.host, found, device):
            below = ", ".join(one.path for one in mappings.devices_below(self.host, found))
            raise exception.WrongVolume(
                device=self.symlink_path,
                reason=f"A mapping of its name, {found.path}, is there already, on "
                f"{below or 'a device that is gone'} instead of "
                f"{device.path if device else 'this volume'}. If nothing uses it, it is left over: "
                "close it with 'cryptsetup close'.",
            )
        if not found.is_of(self._kind):
            raise exception.WrongVolume(
                device=self.symlink_path,
                reason=f"{found.path} is there already, and of another kind ({found.uuid[:16]}).",
            )

    def _check_passphrase(self, call: Call, passphrase: str) -> None:
        """Raise if the passphrase is known not to open this device."""

    def _undo(self, call: Call, device: Device | None, *, opened: bool) -> None:
        """Take back what an attach that failed has made; its own failure is the one to be told.

        :param opened: cryptsetup said that it made the mapping. Otherwise one that is there was
            made by a cryptsetup that was stopped at its limit.
        """
        later = call.later("undo", _UNDO_LIMIT_S)
        try:
            found = mappings.find(self.host, self.dev_name, thoroughly=True)
            made = found is not None and device is not None
            if found is not None and device is not None:
                made = mappings.sits_on(self.host, found, device)
                link.point_back(self.host, later, self.symlink_path, self.dev_name, device)
            if made or opened:
                self._close_volume(call=later)
        except Exception:
            # The failure that made this necessary is the one that is raised.
            LOG.warning("%s may be left open", self.dev_name, exc_info=True)

    # -- closing ---------------------------------------------------------------------------
    def _is_mine(self, found: Mapping) -> bool:
        """Tell whether the mapping that has this volume's name is this volume's.

        An attach that was killed leaves the link as it was, so it need not lead to the mapping.
        """
        if not found.is_crypt:
            return False
        if link.leads_to(self.host, self.symlink_path, self.dev_name):
            return True
        device = self._find_device(found)
        return device is None or mappings.sits_on(self.host, found, device)

    def _close(self, call: Call) -> Result:
        """Remove the mapping, once its short-lived users have gone; return cryptsetup's answer."""
        self._wait_for_users(call)
        for attempt in range(1, _CLOSE_TRIES + 1):
            result = commands.close(self.host, call, self._close_verb, self.dev_name)
            if result.code != commands.BUSY or attempt == _CLOSE_TRIES:
                break
            call.pause(attempt)
        return result

    def _wait_for_users(self, call: Call) -> None:
        if self._users(call):
            with call.step("wait for users of the mapping"):
                call.wait_until(
                    lambda: not self._users(call), what="end of use", limit_s=_SHORT_USE_S
                )

    def _users(self, call: Call) -> list[str]:
        found = mappings.find(self.host, self.dev_name)
        if found is None:
            return []
        users = block.read_users(self.host, found.name)
        if users:
            return users
        try:
            count = self.host.changes.open_count(call, self.dev_name)
        except changes.FAILURES:
            count = None  # cryptsetup will tell
        return [f"it is open {count} times, see 'fuser -v {found.path}'"] if count else []

    def _still_open(self, result: Result) -> processutils.ProcessExecutionError:
        """Return the error of cryptsetup, with who uses the mapping."""
        error = result.error or processutils.ProcessExecutionError(exit_code=result.code)
        if result.code == commands.BUSY:
            call = Call("who uses the mapping", self.host.clock, _SHORT_USE_S)
            users = "; ".join(self._users(call)) or "by a user that cannot be named"
            error.description = f"{self.symlink_path} is still in use: {users}"
        return error

    @staticmethod
    def _hidden(passphrase: str) -> str:
        """Return a passphrase that services handed in themselves, to be shown as ``***``."""
        return privileged.Hidden(passphrase)
