# SPDX-License-Identifier: Apache-2.0
"""The REST gateway of PowerFlex (ScaleIO), as far as a host needs it: map and unmap a volume.

Requests carry the user name and, in place of the password, a token that ``login`` gives for user
name and password (PowerFlex REST API guide). A token is remembered for the rest of the call.
"""

from __future__ import annotations

import base64
import urllib.parse
from typing import Any

from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux.call import Call
from os_brick.initiator.vendors import http
from os_brick.initiator.vendors.http import Answer, Request
from os_brick.initiator.vendors.scaleio_volume import Access, Limits

LOG = logging.getLogger(__name__)

_REQUEST_LIMIT_S = 60.0
_OK = 200
_REFUSED = (401, 403)
# Error codes up to version 3 and since version 4.
ALREADY_MAPPED = (81, 4037)
NOT_MAPPED = (84, 4039)
_KIB = 1024


class GatewayError(exception.BrickException):
    """The gateway refused a request.

    :ivar error_code: the number by which it names the error; None if it gave none.
    :ivar unknown: the request may have arrived and been carried out.
    """

    def __init__(
        self, message: str, error_code: int | None = None, *, unknown: bool = False
    ) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.unknown = unknown


class MappingError(exception.BrickException):
    """A volume is not mapped, as far as is known.

    :ivar unknown: the gateway did not answer: it may be mapped all the same.
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class Gateway:
    """One gateway during one call.

    :param username: wins over that of the connection properties.
    """

    def __init__(self, call: Call, access: Access, username: str, password: str) -> None:
        self._call = call
        self._server = access.server
        self._username = username
        self._password = password
        self._token = access.token

    # -- volumes ------------------------------------------------------------------------------
    def find_volume_id(self, name: str) -> str:
        """Return the id of the volume with a name.

        :raises BrickException: there is none, or the gateway did not tell.
        """
        # Twice: a name may hold "/", and the gateway decodes its paths once more than others.
        quoted = urllib.parse.quote(urllib.parse.quote(name, safe=""), safe="")
        try:
            found = self._ask("GET", f"types/Volume/instances/getByName::{quoted}")
        except GatewayError as exc:
            raise exception.BrickException(
                f"Error getting volume id from name {name}: {exc}"
            ) from exc
        if found is None:
            raise exception.BrickException(f"Volume with name {name} wasn't found.")
        if not isinstance(found, str):
            raise exception.BrickException(
                f"Error getting volume id from name {name}: the gateway's answer is no id"
            )
        return found

    def read_size(self, volume_id: str) -> int | None:
        """Return a volume's size in bytes; None if the gateway does not tell it."""
        found = self._ask("GET", f"instances/Volume::{volume_id}")
        kib = found.get("sizeInKb") if isinstance(found, dict) else None
        return kib * _KIB if isinstance(kib, int) else None

    def map(self, volume_id: str, name: str, guid: str) -> bool:
        """Map a volume to the host with a GUID.

        :returns: False if it was mapped already.
        :raises MappingError: it is not mapped, or that is not known.
        """
        data = {"guid": guid, "allowMultipleMappings": "TRUE"}
        try:
            self._act(volume_id, "addMappedSdc", data)
        except GatewayError as exc:
            if exc.error_code in ALREADY_MAPPED:
                LOG.warning("Ignoring error mapping volume %s: volume already mapped.", name)
                return False
            raise MappingError(f"Error mapping volume {name}: {exc}", unknown=exc.unknown) from exc
        return True

    def unmap(self, volume_id: str, name: str, guid: str) -> None:
        """End a volume's mapping to the host with a GUID; one that does not exist is no error.

        :raises BrickException: it is still mapped, or that is not known.
        """
        try:
            self._act(volume_id, "removeMappedSdc", {"guid": guid})
        except GatewayError as exc:
            if exc.error_code not in NOT_MAPPED:
                raise exception.BrickException(f"Error unmapping volume {name}: {exc}") from exc
            LOG.warning("Ignoring error unmapping volume %s: volume not mapped.", name)

    def set_limits(self, volume_id: str, name: str, guid: str, limits: Limits) -> None:
        """Limit what the host may do with a mapped volume.

        :raises BrickException: it has no such limits now.
        """
        data: dict[str, Any] = {"guid": guid}
        if limits.kbps is not None:
            data["bandwidthLimitInKbps"] = limits.kbps
        if limits.iops is not None:
            data["iopsLimit"] = limits.iops
        try:
            self._act(volume_id, "setMappedSdcLimits", data)
        except GatewayError as exc:
            raise exception.BrickException(f"Error setting limits of volume {name}: {exc}") from exc

    # -- requests -----------------------------------------------------------------------------
    def _act(self, volume_id: str, action: str, data: dict[str, Any]) -> None:
        self._ask("POST", f"instances/Volume::{volume_id}/action/{action}", data)

    def _ask(self, method: str, path: str, data: Any = None) -> Any:
        """Send a request, logged in, and return the value of its answer.

        What was refused for its token was not carried out, so that it may be sent once more.

        :raises GatewayError: the gateway refused it, or said nothing that can be read.
        """
        fresh = self._token is None
        if fresh:
            self._log_in()
        answer = self._send(method, path, data, self._token or "")
        if answer.status in _REFUSED and not fresh:
            LOG.debug("The gateway refused the token, logging in again")
            self._log_in()
            answer = self._send(method, path, data, self._token or "")
        if answer.status != _OK:
            raise self._error(answer)
        if not answer.body.strip():
            return {}
        try:
            return answer.json()
        except ValueError:
            raise GatewayError("the gateway's answer is no JSON", unknown=True) from None

    def _log_in(self) -> None:
        try:
            answer = self._send("GET", "login", None, self._password)
        except GatewayError as exc:
            exc.unknown = False  # whatever was to be asked after this was not
            raise
        token: Any = None
        if answer.status == _OK:
            try:
                token = answer.json()
            except ValueError:
                token = None
        if not isinstance(token, str) or not token:
            error = self._error(answer)
            raise GatewayError(f"{self._server} refused the log-in: {error}", error.error_code)
        self._token = token

    def _send(self, method: str, path: str, data: Any, secret: str) -> Answer:
        basic = base64.b64encode(f"{self._username}:{secret}".encode()).decode()
        request = Request.of_json(method, f"/api/{path}", data, {"Authorization": f"Basic {basic}"})
        self._call.check(f"{method} {path}")
        with self._call.step(f"{method} {path} at {self._server}") as step:
            try:
                limit_s = self._call.within(_REQUEST_LIMIT_S)
                answer = http.exchange(self._server, request, limit_s)
            except http.FAILURES as exc:
                raise GatewayError(
                    f"{self._server} cannot be asked: {exc}",
                    unknown=not isinstance(exc, http.NEVER_SENT),
                ) from exc
            step.outcome = f"status {answer.status}"
            return answer

    @staticmethod
    def _error(answer: Answer) -> GatewayError:
        """Return what an answer says went wrong; only the gateway's own message is quoted."""
        try:
            said = answer.json()
        except ValueError:
            said = None
        message, code = None, None
        if isinstance(said, dict):
            message, code = said.get("message"), said.get("errorCode")
        text = message if isinstance(message, str) else answer.reason
        return GatewayError(
            f"{text} (status {answer.status}"
            + (f", error {code})" if isinstance(code, int) else ")"),
            code if isinstance(code, int) else None,
        )
