# SPDX-License-Identifier: Apache-2.0
"""StorPool: its configuration on this host, its names, and its API, for the connector and for
storage drivers."""

from __future__ import annotations

import configparser
import http.client
import os
import pathlib
import platform
from typing import Any

from oslo_log import log as logging

from os_brick import exception
from os_brick.i18n import _
from os_brick.initiator.linux.call import Call, Clock, SystemClock
from os_brick.initiator.vendors import http as transport
from os_brick.initiator.vendors.http import Answer, Request, Server

LOG = logging.getLogger(__name__)

DEV_STORPOOL = pathlib.Path("/dev/storpool")
DEV_STORPOOL_BYID = pathlib.Path("/dev/storpool-byid")

CONF_FILE = pathlib.Path("/etc/storpool.conf")
CONF_DIRECTORY = pathlib.Path("/etc/storpool.conf.d")
STORPOOL_CONF_DEFAULTS = {"SP_API_HTTP_HOST": "127.0.0.1", "SP_API_HTTP_PORT": "81"}
ENV_OVERRIDE = ["SP_AUTH_TOKEN", "SP_API_HTTP_HOST", "SP_API_HTTP_PORT"]

_UNNAMED = "\0unnamed"  # no section of a file can be called so
_OK = 200
_FIRST_PAUSE_S = 1.0
_API = "/ctrl/1.0"


# -- configuration -----------------------------------------------------------------------------
def get_conf(section: str | None = None, use_env: bool = True) -> dict[str, str]:
    """Return StorPool's configuration of this host.

    ``/etc/storpool.conf`` and then ``/etc/storpool.conf.d/*.conf`` by name, later ones winning:
    what stands before all sections, then the section of this host.

    :param section: name of that section in place of the host's.
    :param use_env: whether ``SP_AUTH_TOKEN``, ``SP_API_HTTP_HOST`` and ``SP_API_HTTP_PORT`` of the
        environment win over the files.
    :returns: settings by name; those without a value are empty.
    :raises BrickException: a file is missing or wrong; the text quotes nothing of it.
    """
    settings = dict(STORPOOL_CONF_DEFAULTS)
    named: dict[str, str] = {}
    wanted = platform.node() if section is None else section
    for path in (CONF_FILE, *_further_files()):
        parser = _read(path)
        settings.update(_section(parser, _UNNAMED))
        named.update(_section(parser, wanted))
    settings.update(named)
    if use_env:
        settings.update({name: os.environ[name] for name in ENV_OVERRIDE if name in os.environ})
    return settings


def _further_files() -> list[pathlib.Path]:
    return sorted(CONF_DIRECTORY.glob("*.conf"))


def _read(path: pathlib.Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        delimiters=("=",), allow_no_value=True, strict=False, interpolation=None
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign] # letter case counts
    try:
        parser.read_string(f"[{_UNNAMED}]\n{path.read_text(encoding='utf-8')}")
    except FileNotFoundError:
        raise exception.BrickException(f"StorPool configuration file {path} is missing") from None
    except (OSError, UnicodeDecodeError, configparser.Error) as exc:
        # Its text may have a line of the file, and that the token.
        why = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
        raise exception.BrickException(
            f"StorPool configuration file {path} cannot be read: {why}"
        ) from None
    return parser


def _section(parser: configparser.ConfigParser, name: str) -> dict[str, str]:
    if not parser.has_section(name):
        return {}
    return {key: value or "" for key, value in parser.items(name)}


# -- names -------------------------------------------------------------------------------------
def os_to_sp_volume_name(prefix: str, volume_id: str) -> str:
    """Return StorPool's name of a volume."""
    return f"{prefix}--volume-{volume_id}"


def os_to_sp_snapshot_name(
    prefix: str, type: str, snapshot_id: str, more: str | None = None
) -> str:
    """Return StorPool's name of a snapshot.

    :param type: what it was made for.
    :param more: a further distinction.
    """
    return f"{prefix}--{type}--{'none' if more is None else more}--snapshot-{snapshot_id}"


# -- API ---------------------------------------------------------------------------------------
class StorPoolAPIError(exception.BrickException):
    """StorPool refused a request.

    :ivar status: of its answer.
    :ivar json: the answer's value.
    :ivar name: which error it is, ``"busy"``.
    :ivar desc: StorPool's words.
    :ivar transient: whether the same request may succeed later.
    """

    message = _("HTTP: %(status)s, %(name)s: %(desc)s")

    def __init__(self, status: int, json: Any) -> None:
        self.status = status
        self.json = json
        error = json.get("error") if isinstance(json, dict) else None
        error = error if isinstance(error, dict) else {}
        self.name = error.get("name", "<Missing error name>")
        self.desc = error.get("descr", "<Missing error description>")
        self.transient = bool(error.get("transient", False))
        super().__init__(status=status, name=self.name, desc=self.desc)


class StorPoolAPI:
    """StorPool's HTTP API, usually on this host.

    A request whose failure is transient, and one that met no server or a server that broke off, is
    sent again, the same, after 1, 2, 4 … seconds.

    :param host: name or address.
    :param auth: the token, ``SP_AUTH_TOKEN``.
    :param timeout: seconds for one request and its answer.
    :param transient_retries: how often a request is sent again.
    :param clock: the source of time, for tests.
    :param call: a public call that all requests belong to: they end with it.

    Each method returns the ``data`` of the answer and raises :class:`StorPoolAPIError`, or OSError
    or ``http.client.HTTPException`` if there was no answer, and ``DeadlineExceeded`` with ``call``.
    """

    def __init__(
        self,
        host: str,
        port: str | int,
        auth: str,
        timeout: float = 300,
        transient_retries: int = 5,
        *,
        clock: Clock | None = None,
        call: Call | None = None,
    ) -> None:
        self._server = Server(host, int(port))
        self._auth = auth
        self._timeout_s = timeout
        self._retries = transient_retries
        self._clock = clock or SystemClock()
        self._of_call = call

    def within(self, call: Call) -> StorPoolAPI:
        """Return this API for one public call: its requests end with it, and it tells of them."""
        return StorPoolAPI(
            self._server.host,
            self._server.port,
            self._auth,
            self._timeout_s,
            self._retries,
            clock=self._clock,
            call=call,
        )

    def disks_list(self) -> Any:
        return self._get("DisksList")

    def volume_templates_list(self) -> Any:
        return self._get("VolumeTemplatesList")

    def volumes_reassign(self, data: Any) -> Any:
        return self._post("MultiCluster/VolumesReassign", data)

    def volumes_reassign_wait(self, data: Any) -> Any:
        return self._post("MultiCluster/VolumesReassignWait", data)

    def volume(self, volume: str) -> Any:
        return self._get(f"MultiCluster/Volume/{volume}")

    def volume_create(self, data: Any) -> Any:
        return self._post("MultiCluster/VolumeCreate", data)

    def volume_get_info(self, volume: str) -> Any:
        return self._get(f"MultiCluster/VolumeGetInfo/{volume}")

    def volume_update(self, volume: str, data: Any) -> Any:
        return self._post(f"MultiCluster/VolumeUpdate/{volume}", data)

    def volume_revert(self, volume: str, data: Any) -> Any:
        return self._post(f"MultiCluster/VolumeRevert/{volume}", data)

    def volume_delete(self, volume: str) -> Any:
        return self._post(f"MultiCluster/VolumeDelete/{volume}", {})

    def volumes_list(self) -> Any:
        return self._get("MultiCluster/VolumesList")

    def snapshot_create(self, volume: str, data: Any) -> Any:
        return self._post(f"MultiCluster/VolumeSnapshot/{volume}", data)

    def snapshot_update(self, snapshot: str, data: Any) -> Any:
        return self._post(f"SnapshotUpdate/{snapshot}", data)

    def snapshot_delete(self, snapshot: str) -> Any:
        return self._post(f"MultiCluster/SnapshotDelete/{snapshot}", {})

    def get_iscsi_config(self) -> Any:
        return self._get("iSCSIConfig")

    def post_iscsi_config(self, data: Any) -> Any:
        return self._post("iSCSIConfig", data)

    # -- requests -----------------------------------------------------------------------------
    def _get(self, query: str) -> Any:
        return self._ask("GET", query, None)

    def _post(self, query: str, data: Any) -> Any:
        return self._ask("POST", query, data)

    def _ask(self, method: str, query: str, data: Any) -> Any:
        headers = {"Authorization": f"Storpool v1:{self._auth}"}
        request = Request.of_json(method, f"{_API}/{query}", data, headers)
        # All requests and the pauses between them, where no public call sets a limit.
        limit_s = self._timeout_s * (self._retries + 1) + _FIRST_PAUSE_S * 2**self._retries
        call = self._of_call or Call(f"{method} {query}", self._clock, limit_s)
        for sent_before in range(self._retries + 1):
            try:
                return self._send(call, request)
            except Exception as exc:
                if sent_before == self._retries or not _may_be_sent_again(exc):
                    raise
                LOG.debug("%s %s failed, it is sent again: %s", method, query, exc)
            call.pause(_FIRST_PAUSE_S * 2**sent_before)
        raise AssertionError("unreachable")

    def _send(self, call: Call, request: Request) -> Any:
        line = f"{request.method} {request.path}"
        call.check(line)
        with call.step(line) as step:
            answer = transport.exchange(self._server, request, call.within(self._timeout_s))
            step.outcome = f"status {answer.status}"
            return _data_of(answer)


def _may_be_sent_again(exc: Exception) -> bool:
    if isinstance(exc, StorPoolAPIError):
        return exc.transient
    return isinstance(
        exc, (http.client.HTTPException, ConnectionRefusedError, ConnectionResetError)
    )


def _data_of(answer: Answer) -> Any:
    """Return what an answer is about.

    :raises StorPoolAPIError: it is an error.
    """
    try:
        value = answer.json()
    except ValueError:
        value = {"error": {"name": "noJSON", "descr": f"{answer.reason}, an answer without JSON"}}
    if answer.status != _OK or not isinstance(value, dict) or "error" in value:
        raise StorPoolAPIError(answer.status, value)
    return value.get("data")
