# SPDX-License-Identifier: Apache-2.0
"""Running programs: what connectors, helpers and encryptors derive from."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import six

from os_brick import masking

if TYPE_CHECKING:
    from oslo_concurrency import processutils

ExecuteFunction = Callable[..., Any]


def _default_execute(*cmd: Any, **kwargs: Any) -> Any:
    # Loaded with the first program that is run: privsep is half of what an import would cost.
    from os_brick.privileged import rootwrap

    return rootwrap.execute(*cmd, **kwargs)


class Executor:
    """Runs programs by the function its owner supplied, or by the library's own.

    :param root_helper: command that gives root, such as ``"sudo nova-rootwrap
        /etc/nova/rootwrap.conf"``; handed on to the function with each command that needs root. The
        library's own ignores it.
    :param execute: ``execute(*words, **keywords) -> (stdout, stderr)``, with the keywords of
        ``oslo_concurrency.processutils.execute``. None for
        ``os_brick.privileged.rootwrap.execute``.

    Further arguments are accepted and ignored.
    """

    def __init__(
        self,
        root_helper: str | None,
        execute: ExecuteFunction | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.set_execute(execute)
        self.set_root_helper(root_helper)

    def set_execute(self, execute: ExecuteFunction | None) -> None:
        """Run all further programs by this function; None for the library's own."""
        self._execute_function: ExecuteFunction = execute or _default_execute

    def set_root_helper(self, helper: str | None) -> None:
        """Hand this root helper on with all further commands."""
        self._root_helper = helper

    @property
    def has_own_execute(self) -> bool:
        """Whether the caller supplied the function that runs programs.

        Then every change of the host has to be a program that it runs: it may lead into another
        container, or to another way of becoming root.
        """
        function = self._execute_function
        if function is _default_execute:
            return False
        rootwrap = sys.modules.get("os_brick.privileged.rootwrap")
        return rootwrap is None or function is not rootwrap.execute

    @staticmethod
    def safe_decode(string: Any) -> Any:
        """Text that can be logged and sent: what is not UTF-8 is dropped. Other objects stay."""
        if isinstance(string, bytes):
            return six.ensure_text(string, errors="ignore")
        if isinstance(string, str) and not string.isascii():
            # oslo.concurrency decodes bytes that are not UTF-8 as lone surrogates.
            return string.encode(errors="ignore").decode()
        return string

    @classmethod
    def make_putils_error_safe(cls, exc: processutils.ProcessExecutionError) -> None:
        """Make the texts of a failed command safe to log."""
        cls._replace_texts(exc, cls.safe_decode)

    @staticmethod
    def _replace_texts(
        exc: processutils.ProcessExecutionError, replaced: Callable[[Any], Any]
    ) -> None:
        for field in ("stdout", "stderr", "cmd", "description"):
            value = getattr(exc, field)
            if isinstance(value, (list, tuple)):
                value = type(value)(replaced(item) for item in value)
            else:
                value = replaced(value)
            setattr(exc, field, value)
        # What repr() shows, and what another process would rebuild the error from.
        exc.args = (exc.stdout, exc.stderr, exc.exit_code, exc.cmd, exc.description)

    def _execute(self, *args: Any, **kwargs: Any) -> Any:
        """Run a program.

        :param args: the words of the command.
        :param kwargs: ``run_as_root``, ``root_helper``, ``check_exit_code``, ``timeout``,
            ``attempts`` and others: see ``os_brick.privileged.rootwrap``.
        :returns: ``(stdout, stderr)`` as text, or the None (or other falsy value) that the
            function returned.
        :raises oslo_concurrency.processutils.ProcessExecutionError: the program failed.
        :raises OSError: a function supplied by the caller could not start it.
        """
        try:
            result = self._execute_function(*args, **kwargs)
        except Exception as exc:
            self._make_error_safe(exc, args)
            raise
        if not result:
            return result
        stdout, stderr = result
        return self.safe_decode(stdout), self.safe_decode(stderr)

    def _make_error_safe(self, exc: Exception, cmd: tuple[Any, ...]) -> None:
        """Make a failed command safe to log: texts decoded, and without secrets."""
        from oslo_concurrency import processutils

        if not isinstance(exc, processutils.ProcessExecutionError):
            return
        self.make_putils_error_safe(exc)
        secrets = masking.secrets_of_command(cmd)
        if secrets:
            # oslo.concurrency masks by patterns, which lets the tail of a secret with a quote in
            # it through: the command is written anew, the rest is searched for the values.
            self._replace_texts(exc, lambda text: _without(text, secrets))
            exc.cmd = masking.command_text(cmd)
            exc.args = (exc.stdout, exc.stderr, exc.exit_code, exc.cmd, exc.description)

    # Links, as changes of the host: by the library's privileged verbs, or as programs run by the
    # caller's function. See os_brick.utils.connect_volume_prepare_result.

    def _link_root(self, target: str, link_name: str) -> None:
        """Make or replace a symbolic link as root."""
        if self.has_own_execute:
            # -n: a link to a directory is replaced, not followed.
            words = ("ln", "-s", "-f", "-n", target, link_name)
            self._execute(*words, run_as_root=True, root_helper=self._root_helper)
        else:
            from os_brick.privileged import rootwrap

            rootwrap.link_root(target, link_name, force=True)

    def _unlink_root(self, link_name: str) -> None:
        """Remove a symbolic link as root."""
        if self.has_own_execute:
            words = ("rm", "-f", link_name)
            self._execute(*words, run_as_root=True, root_helper=self._root_helper)
        else:
            from os_brick.privileged import rootwrap

            rootwrap.unlink_root(link_name)


def _without(text: Any, secrets: frozenset[str]) -> Any:
    return masking.mask_text(text, secrets) if isinstance(text, str) else text


class Thread(threading.Thread):
    """A thread that logs under the request of the thread that made it (oslo.context)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Whoever has a context has loaded the module. Loading it to learn that there is none costs
        # more than the thread.
        context = sys.modules.get("oslo_context.context")
        self._request_context: Any = context.get_current() if context else None
        super().__init__(*args, **kwargs)

    def run(self) -> None:
        """Run the thread's function, with the context in place."""
        if self._request_context:
            self._request_context.update_store()
        super().run()
