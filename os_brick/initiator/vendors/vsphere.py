# SPDX-License-Identifier: Apache-2.0
"""A session with a vCenter server, by oslo.vmware's SOAP client.

Of oslo.vmware only the client of the API is used (``oslo_vmware.vim``). Its session and its
transfers of images wait without limits, log in again and again while a server does not answer, and
do not look at the status of an HTTP answer.
"""

from __future__ import annotations

import contextlib
import logging as std_logging
from collections.abc import Callable, Iterator
from typing import Any

from oslo_log import log as logging

from os_brick import exception, masking
from os_brick.initiator.linux.call import Call
from os_brick.initiator.vendors.limits import run_within
from os_brick.initiator.vendors.vmdk_volume import Vcenter

LOG = logging.getLogger(__name__)

_ANSWER_LIMIT_S = 120.0
_LOGOUT_LIMIT_S = 30.0
_UNDO_LIMIT_S = 120.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_ENDED = "NotAuthenticated"
_WAITING = ("queued", "running", "initializing")


class VsphereError(exception.BrickException):
    """A vCenter server refused a request, or did not answer.

    :ivar faults: names of the faults that it told, ``("FileNotFound",)``.
    """

    def __init__(self, message: str, faults: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class _NoPasswords(std_logging.Filter):
    """Empties lines of suds that name a password: at DEBUG it writes out whole messages."""

    def filter(self, record: std_logging.LogRecord) -> bool:
        if "password" in record.getMessage():
            record.msg, record.args = "(a SOAP message with a password)", ()
        return True


def _hide_passwords() -> None:
    """Keep what suds logs free of passwords, once it is loaded."""
    for name in list(std_logging.root.manager.loggerDict):
        logger = std_logging.getLogger(name)
        if name.startswith("suds") and not any(
            isinstance(one, _NoPasswords) for one in logger.filters
        ):
            logger.addFilter(_NoPasswords())


@contextlib.contextmanager
def session(call: Call, vcenter: Vcenter) -> Iterator[Session]:
    """Log in to a vCenter server, and out again however the block ends.

    :raises VsphereError: the log-in failed.
    """
    # A failed one is tried again: it has changed nothing.
    client = _repeated(call, vcenter, lambda: Session(call, vcenter))
    try:
        client.log_in()
        yield client
    finally:
        client.log_out()


class Session:
    """A session with a vCenter server during one call."""

    def __init__(self, call: Call, vcenter: Vcenter) -> None:
        self.call = call
        self.vcenter = vcenter
        self._is_in = False
        self._vim: Any = self._bounded("connect", self._connect)

    def _connect(self) -> Any:
        from oslo_vmware import vim  # loaded with the first VMDK volume

        _hide_passwords()
        server = self.vcenter.server
        tls = server.tls
        client = vim.Vim(
            protocol="https" if tls else "http",
            host=server.bare_host,
            port=server.port,
            cacert=tls.ca if tls else None,
            insecure=not (tls and tls.verify),
            connection_timeout=_ANSWER_LIMIT_S,
        )
        _ = client.service_content
        return client

    def tidy_up(self) -> None:
        """Give what undoes a failed step some time of its own, whatever is left of the call's."""
        self.call = self.call.later(f"{self.call.operation}, undone", _UNDO_LIMIT_S)

    # -- in and out ---------------------------------------------------------------------------
    def log_in(self) -> None:
        """Log in.

        :raises VsphereError: the server refused.
        """
        self._bounded(
            "Login",
            lambda: self._vim.Login(
                self.manager("sessionManager"),
                userName=self.vcenter.username,
                password=self.vcenter.password,
                locale="en",
            ),
        )
        self._is_in = True

    def log_out(self) -> None:
        """Log out, also when the call's time is over; a failure is a warning."""
        if not self._is_in:
            return
        self._is_in = False
        try:
            run_within(
                _LOGOUT_LIMIT_S,
                lambda: self._vim.Logout(self.manager("sessionManager")),
                str(self.vcenter.server),
            )
        except Exception as exc:  # noqa: BLE001 - the session ends by itself; what came before counts
            LOG.warning("Could not log out of %s: %s", self.vcenter.server, exc)

    @property
    def cookie(self) -> str:
        """The header by which HTTP requests belong to this session. Secret."""
        for cookie in self._vim.client.cookiejar:
            if cookie.name.lower() == "vmware_soap_session":
                return f"{cookie.name}={cookie.value}"
        return ""

    # -- requests -----------------------------------------------------------------------------
    def manager(self, name: str) -> Any:
        """Return a part of the server, ``"virtualDiskManager"``."""
        return getattr(self._vim.service_content, name)

    def new(self, kind: str, **fields: Any) -> Any:
        """Return a value of one of the API's types."""
        made = self._vim.client.factory.create(f"ns0:{kind}")
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    def invoke(self, method: str, target: Any, **arguments: Any) -> Any:
        """Send one request, once, and return its answer.

        :raises VsphereError: the server refused it, or did not answer.
        """
        return self._logged_in(method, lambda: getattr(self._vim, method)(target, **arguments))

    def read(self, target: Any, name: str) -> Any:
        """Return a property of a managed object; None if it is not set.

        :raises VsphereError: the server did not tell it, asked several times.
        """
        from oslo_vmware import vim_util

        def ask() -> Any:
            return vim_util.get_object_property(self._vim, target, name)

        return _repeated(self.call, self.vcenter, lambda: self._logged_in(f"read {name}", ask))

    def run(self, method: str, target: Any, **arguments: Any) -> None:
        """Start a task and wait for its end.

        :raises VsphereError: it failed.
        :raises DeadlineExceeded: it has not ended in time; it may go on.
        """
        task = self.invoke(method, target, **arguments)
        info = self._wait(lambda: self.read(task, "info"), method)
        if info.state != "success":
            raise self._fault_of(info, method)

    def wait_for_lease(self, lease: Any) -> Any:
        """Wait until an export's lease is ready, and return what it offers.

        :raises VsphereError: it failed.
        """
        state = self._wait(lambda: _State(self.read(lease, "state")), "lease").state
        if state != "ready":
            error = self.read(lease, "error")
            raise VsphereError(
                f"The export's lease is in state {state}: "
                f"{getattr(error, 'localizedMessage', 'no reason told')}"
            )
        return self.read(lease, "info")

    def _wait(self, look: Callable[[], Any], what: str) -> Any:
        with self.call.step(f"wait for {what}") as step:
            step.waited_for = "vCenter"
            while True:
                info = look()
                if info is None or info.state not in _WAITING:
                    return info if info is not None else _State("unknown")
                self.call.pause(self.vcenter.poll_s)
                self.call.check(what)

    @staticmethod
    def _fault_of(info: Any, method: str) -> VsphereError:
        error = getattr(info, "error", None)
        fault = getattr(error, "fault", None)
        names = () if fault is None else (type(fault).__name__,)
        text = getattr(error, "localizedMessage", None) or "no reason told"
        return VsphereError(f"{method} failed: {text}", names)

    def _logged_in(self, what: str, ask: Callable[[], Any]) -> Any:
        """Run a request; where the session has ended meanwhile, log in again and repeat it.

        A session that was idle for half an hour is ended by the server, and a transfer may take
        longer. What it refused for that it has not carried out.
        """
        try:
            return self._bounded(what, ask)
        except VsphereError as exc:
            if _ENDED not in exc.faults:
                raise
        self.log_in()
        return self._bounded(what, ask)

    def _bounded(self, what: str, ask: Callable[[], Any]) -> Any:
        """Run a request within the call's time.

        :raises VsphereError: whatever became of it, without secrets.
        """
        from oslo_vmware import exceptions

        self.call.check(what)
        server = str(self.vcenter.server)
        with self.call.step(f"{what} at {server}", quiet=True):
            try:
                return run_within(self.call.within(_ANSWER_LIMIT_S), ask, server)
            except exceptions.VMwareDriverException as exc:
                overloaded = (
                    exceptions.VimConnectionException,
                    exceptions.VimSessionOverLoadException,
                )
                kind = _Unanswered if isinstance(exc, overloaded) else VsphereError
                raise kind(
                    self._without_secrets(f"{what} failed: {exc}"),
                    tuple(getattr(exc, "fault_list", None) or ()),
                ) from None
            except Exception as exc:  # noqa: BLE001 - suds and requests raise what they like
                raise _Unanswered(self._without_secrets(f"{what} failed: {exc}")) from None

    def _without_secrets(self, text: str) -> str:
        return masking.mask_text(text, [self.vcenter.password])


class _Unanswered(VsphereError):
    """No answer came, or the server was too busy: the same may succeed later."""


class _State:
    """A state, as something that has one."""

    def __init__(self, state: Any) -> None:
        self.state = state


def _repeated(call: Call, vcenter: Vcenter, ask: Callable[[], Any]) -> Any:
    """Ask again what changes nothing, as often as the storage driver's options say."""
    pause_s = _FIRST_PAUSE_S
    for tried in range(vcenter.retries + 1):
        try:
            return ask()
        except _Unanswered as exc:
            if tried == vcenter.retries:
                raise
            LOG.debug("%s; asking again", exc)
        call.pause(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    raise AssertionError("unreachable")
