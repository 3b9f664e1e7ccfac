# SPDX-License-Identifier: Apache-2.0
"""Clients of remote file systems: they mount shares, each at a point named after it.

A share counts as mounted only if the kernel's mount table shows that share at that point. Nothing
else is believed: not the exit code of ``mount``, and not a directory that is there. For whoever
writes to the directory of a share that is not mounted writes to the local disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import ClassVar

from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception, executor, utils
from os_brick.i18n import _
from os_brick.initiator.linux import locking, mounts, nfs
from os_brick.initiator.linux.call import Call, public_call
from os_brick.initiator.linux.doors import HasHost
from os_brick.initiator.linux.programs import Result

LOG = logging.getLogger(__name__)

_SMALL_LIMIT_S = 60.0
_ANSWER_LIMIT_S = 30.0
_UMOUNT_LIMIT_S = 60.0
_VZ_CLUSTERS = "/etc/pstorage/clusters"
_VZ_SHARE = re.compile(
    r"(?:(?P<mds>\S+?):/)?(?P<cluster>[a-zA-Z0-9_-]+)(?::(?P<password>\S+))?", re.ASCII
)

#: The public call under way. The protected methods that subclasses elsewhere override or call have
#: no parameter for it.
_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


class RemoteFsClient(HasHost):
    """Mounts shares of one type.

    :param mount_type: ``nfs``, ``cifs``, ``glusterfs``, ``vzstorage``, ``quobyte`` or ``scality``.
    :param root_helper: command by which a supplied ``execute`` becomes root.
    :param execute: runs all programs in place of the library's own function.
    :param kwargs: ``<type>_mount_point_base`` (required; ``smbfs_…`` for ``cifs``), the directory
        below which shares are mounted, and ``<type>_mount_options``, comma-separated.
    :raises ProtocolNotSupported: another type.
    :raises InvalidParameterValue: no base.
    """

    _PREFIXES: ClassVar[dict[str, str]] = {
        "nfs": "nfs",
        "cifs": "smbfs",
        "glusterfs": "glusterfs",
        "vzstorage": "vzstorage",
        "quobyte": "quobyte",
        "scality": "scality",
    }

    def __init__(
        self,
        mount_type: str,
        root_helper: str | None,
        execute: executor.ExecuteFunction | None = None,
        *args: object,
        **kwargs: object,
    ) -> None:
        prefix = self._PREFIXES.get(mount_type)
        if prefix is None:
            raise exception.ProtocolNotSupported(protocol=mount_type)
        self._mount_type = mount_type
        base = utils.convert_str(kwargs.get(f"{prefix}_mount_point_base"))
        if not base:
            raise exception.InvalidParameterValue(
                err=_("%s_mount_point_base required") % prefix,
            )
        self._mount_base: str = base
        options = kwargs.get(f"{prefix}_mount_options")
        self._mount_options: str | None = str(options) if options else None
        super().__init__(root_helper, execute, *args, **kwargs)
        if mount_type == "nfs":
            self._check_nfs_options()

    # -- names of mount points -----------------------------------------------------------------
    def get_mount_base(self) -> str:
        """Return the directory below which shares are mounted."""
        return self._mount_base

    def get_mount_point(self, device_name: str) -> str:
        """Return where a share is, or would be, mounted. Services compute the same by themselves.

        :param device_name: the share; its text is taken as it is.
        """
        return os.path.join(self._mount_base, self._get_hash_str(device_name))

    @staticmethod
    def _get_hash_str(base_str: str | bytes) -> str:
        """Return the hexadecimal MD5 of a text, which protects nothing here."""
        data = base_str.encode() if isinstance(base_str, str) else base_str
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    # -- what is mounted -----------------------------------------------------------------------
    def _read_mounts(self) -> dict[str, str]:
        """Return what is mounted, by mount point."""
        return mounts.read_sources(self.host.proc)

    def is_mounted(self, share: str) -> bool:
        """Tell whether the mount table shows a share at its point.

        :raises BrickException: something else is mounted there.
        :raises OSError: the mount table could not be read.
        """
        return self._is_mounted(share, self.get_mount_point(share))

    def _is_mounted(self, share: str, point: str) -> bool:
        source = mounts.source_at(self._read_mounts(), point)
        if source is None:
            return False
        if mounts.is_same_source(self._mount_type, source, share):
            return True
        raise exception.BrickException(
            _("%(source)s is mounted at %(point)s, where %(share)s belongs. Unmount it.")
            % {"source": source, "point": point, "share": self._shown(share)}
        )

    def check_answers(self, share: str) -> None:
        """See that the file system of a mounted share answers.

        :raises BrickException: it does not within a bounded time, or its mount is stale.
        """
        point = self.get_mount_point(share)
        call = Call(f"look at {point}", self.host.clock, _ANSWER_LIMIT_S)
        # A program: it can be killed while it waits for a dead server, a thread cannot.
        words = ("stat", "-f", point)
        result = self.host.programs.run(call, *words, limit_s=_ANSWER_LIMIT_S, as_root=False)
        if result.code != 0:
            raise exception.BrickException(
                _("%(share)s is mounted at %(point)s, but does not answer (%(why)s)")
                % {"share": self._shown(share), "point": point, "why": result.summary}
            )

    def _shown(self, share: str) -> str:
        """Return a share as logs and errors may have it."""
        return share

    # -- mounting ------------------------------------------------------------------------------
    def mount(self, share: str, flags: Sequence[str] | None = None) -> None:
        """Mount a share at its point, unless it is mounted there. It is, when this returns.

        :param flags: words for ``mount``, which count more than the configured options.
        :raises oslo_concurrency.processutils.ProcessExecutionError: ``mount`` failed, or did not
            end in time.
        :raises BrickException: the share is not mounted all the same; something else is mounted
            there; or an NFS mount failed.
        """
        point = self.get_mount_point(share)
        if self._is_mounted(share, point):
            LOG.debug("Already mounted: %s", point)  # Cinder asks every minute
            return
        with self._public_call(f"Mount of {self._shown(share)}", point) as call:
            if self._is_mounted(share, point):
                return
            self._make_point(call, point)
            if self._mount_type == "nfs":
                self._mount_nfs(share, point, flags)
            else:
                self._do_mount(self._mount_type, share, point, self._mount_options, flags)

    def _make_point(self, call: Call, point: str) -> None:
        words = ("mkdir", "-p", point)
        self.host.programs.run(call, *words, limit_s=_SMALL_LIMIT_S, as_root=False).check()

    def _do_mount(
        self,
        mount_type: str,
        share: str,
        mount_path: str,
        mount_options: str | None = None,
        flags: Sequence[str] | None = None,
    ) -> None:
        """Mount by ``mount -t``, and see that it is mounted."""
        options = ("-o", mount_options) if mount_options else ()
        words = ("mount", "-t", mount_type, *options, *(flags or ()), share, mount_path)
        result = self._run_mount(self._call(share), *words, shown=3)
        self._see_mounted(result, share, mount_path)

    def _run_mount(self, call: Call, *words: str, shown: int) -> Result:
        return self.host.programs.run(call, *words, limit_s=call.limit_s, shown=shown)

    def _call(self, share: str) -> Call:
        """Return the public call that this happens in; a new one where a service calls this."""
        limit_s = cfg.CONF.os_brick.call_timeout
        operation = f"Mount of {self._shown(share)}"
        return _CALL.get() or Call(operation, self.host.clock, limit_s)

    @contextlib.contextmanager
    def _public_call(self, operation: str, point: str) -> Iterator[Call]:
        """Give a public call its deadline and its mount point's lock."""
        clock, limit_s = self.host.clock, cfg.CONF.os_brick.call_timeout
        names = [f"mount {mounts.real_point(*os.path.split(point))}"]
        with (
            public_call(operation, clock, limit_s) as call,
            locking.held_if_possible(self.host.locks, call, names),
        ):
            token = _CALL.set(call)
            try:
                yield call
            finally:
                _CALL.reset(token)

    def _see_mounted(self, result: Result, share: str, point: str) -> None:
        """Believe the mount table about how a mount ended.

        One that was stopped at its time limit is never used.
        """
        if result.code is not None and self._is_mounted(share, point):
            if result.code != 0:  # another process was faster (bugs 1780813, 1797233)
                LOG.debug("%s is mounted by somebody else meanwhile", point)
            return
        if result.code == 0:
            raise exception.BrickException(
                _("Mounting %(share)s was reported as done, but it is not mounted at %(point)s")
                % {"share": self._shown(share), "point": point}
            )
        LOG.error("Failed to mount %s, reason: %s", self._shown(share), result.summary)
        result.check()

    # -- NFS -----------------------------------------------------------------------------------
    def _check_nfs_options(self) -> None:
        """Prepare the attempts: with which options to mount, one after the other."""
        self._nfs_mount_type_opts: dict[str, str | None] = {"nfs": self._mount_options}
        if not self._option_exists(self._mount_options, nfs.VERSION):
            self._nfs_mount_type_opts = {
                **{f"nfs 4.{minor}": self._with_version(minor) for minor in ("2", "1")},
                **self._nfs_mount_type_opts,
            }

    def _with_version(self, minor: str) -> str:
        options = self._update_option(self._mount_options, "vers", "4")
        return self._update_option(options, "minorversion", minor)

    @staticmethod
    def _option_exists(options: str | None, option_pattern: str) -> int:
        """Return the place (from 1 on) of the first option that begins like the pattern, or 0."""
        return nfs.find_option(options, option_pattern)

    @staticmethod
    def _update_option(options: str | None, option: str, value: str | None = None) -> str:
        """Return options with one of them set, at their end."""
        return nfs.set_option(options, option, value)

    def _mount_nfs(
        self,
        nfs_share: str,
        mount_path: str,
        flags: Sequence[str] | None = None,
    ) -> None:
        """Mount an NFS share: by 4.2, by 4.1, then as client and server negotiate.

        The next one is tried only where the version may be the reason of a failure.

        :raises BrickException: with what each attempt ended in.
        """
        attempts = self._nfs_mount_type_opts
        if nfs.names_version(flags or ()):
            attempts = {"nfs": self._mount_options}
        errors: dict[str, str] = {}
        for name, options in attempts.items():
            try:
                self._do_mount("nfs", nfs_share, mount_path, options, flags)
                return
            except processutils.ProcessExecutionError as exc:
                errors[name] = str(exc)
                if not nfs.may_be_the_version(exc):
                    break
                LOG.debug("%s could not be mounted by %s", nfs_share, name)
        raise exception.BrickException(
            _("NFS mount failed for share %(sh)s. Error - %(error)s")
            % {"sh": nfs_share, "error": errors}
        )

    # -- unmounting ----------------------------------------------------------------------------
    def release(self, share: str) -> bool:
        """Unmount a share that nobody uses; not called by anything but who chose so.

        Between an attach and the opening of its file nobody uses the mount: the caller has to know
        that no such attach is under way.

        :returns: whether it is not mounted any more.
        :raises oslo_concurrency.processutils.ProcessExecutionError: it could not be unmounted, for
            another reason than that it is in use.
        """
        point = self.get_mount_point(share)
        with self._public_call(f"Unmount of {self._shown(share)}", point) as call:
            if not self._is_mounted(share, point):
                return True
            result = self.host.programs.run(call, "umount", point, limit_s=_UMOUNT_LIMIT_S)
            if result.code is not None and not self._is_mounted(share, point):
                words = ("rmdir", point)
                self.host.programs.run(call, *words, limit_s=_SMALL_LIMIT_S, as_root=False)
                return True
            if result.code is None or "busy" not in result.err:
                result.check()
            LOG.debug("%s stays mounted: it is in use", point)
            return False


class ScalityRemoteFsClient(RemoteFsClient):
    """Mounts Scality's SOFS: one file system for all shares.

    :param kwargs: ``scality_mount_point_base`` is where it is mounted.
    """

    def __init__(
        self,
        mount_type: str,
        root_helper: str | None,
        execute: executor.ExecuteFunction | None = None,
        *args: object,
        **kwargs: object,
    ) -> None:
        super().__init__(mount_type, root_helper, execute, *args, **kwargs)
        self._mount_base = self._mount_base.rstrip("/")
        if not self._mount_base:
            raise exception.InvalidParameterValue(err=_("scality_mount_point_base required"))

    def get_mount_point(self, device_name: str) -> str:
        """Return the directory of a share's files."""
        return os.path.join(self._mount_base, device_name, "00")

    def is_mounted(self, share: str) -> bool:
        """Tell whether the file system is mounted."""
        return self._is_mounted(share, self._mount_base)

    def mount(self, share: str, flags: Sequence[str] | None = None) -> None:
        """Mount the file system, unless it is mounted; share and flags play no part."""
        point = self._mount_base
        if self._is_mounted(share, point):
            LOG.debug("Already mounted: %s", point)
            return
        with self._public_call("Mount of sofs", point) as call:
            if not self._is_mounted(share, point):
                self._make_point(call, point)
                self._do_mount("sofs", "/etc/sfused.conf", point)

    def release(self, share: str) -> bool:
        """Leave the file system mounted: all shares are in it."""
        return False


class VZStorageRemoteFSClient(RemoteFsClient):
    """Mounts clusters of Virtuozzo Storage: ``[MDS1[,MDS2]...:/]<CLUSTER>[:PASSWORD]``."""

    @staticmethod
    def _parse(share: str) -> tuple[str, str, str]:
        """Return metadata servers, cluster and password of a share; ``""`` for what it lacks.

        :raises BrickException: it is none; the text does not tell what may be a password.
        """
        match = _VZ_SHARE.fullmatch(share)
        if match is None:
            raise exception.BrickException(
                _(
                    "Invalid Virtuozzo Storage share specification: %s. "
                    "Must be: [MDS1[,MDS2],...:/]<CLUSTER NAME>[:PASSWORD]."
                )
                % re.sub(r":(?!/)[^:]*$", ":***", share)
            )
        return match["mds"] or "", match["cluster"], match["password"] or ""

    def _shown(self, share: str) -> str:
        mds, cluster, password = self._parse(share)
        place = f"{mds}:/{cluster}" if mds else cluster
        return f"{place}:***" if password else place

    def _do_mount(
        self,
        mount_type: str,
        share: str,
        mount_path: str,
        mount_options: str | None = None,
        flags: Sequence[str] | None = None,
    ) -> None:
        """Mount by Virtuozzo's own programs, and see that it is mounted."""
        call = self._call(share)
        mds, cluster, password = self._parse(share)
        if mds:
            self._write_mds_list(call, cluster, mds.split(","))
        if password:
            tell = ("pstorage", "-c", cluster, "auth-node", "-P")
            self.host.programs.run(call, *tell, limit_s=_SMALL_LIMIT_S, stdin=password).check()
        words = ("pstorage-mount", "-c", cluster, *(flags or ()), mount_path)
        self._see_mounted(self._run_mount(call, *words, shown=3), share, mount_path)

    def _write_mds_list(self, call: Call, cluster: str, servers: list[str]) -> None:
        """Tell the host which metadata servers a cluster has."""
        folder = f"{_VZ_CLUSTERS}/{cluster}"
        with tempfile.TemporaryDirectory(prefix="os-brick-vz-") as made:
            path = os.path.join(made, "bs_list")
            with open(path, "w") as file:
                file.writelines(f"{server}\n" for server in servers)
            copy = ("cp", "-rf", made, folder)
            if self.host.etc.exists(folder.removeprefix("/etc/")):
                copy = ("cp", "-f", path, f"{folder}/bs_list")
            self.host.programs.run(call, *copy, limit_s=_SMALL_LIMIT_S).check()
        chown = ("chown", "-R", "root:root", folder)
        self.host.programs.run(call, *chown, limit_s=_SMALL_LIMIT_S).check()
