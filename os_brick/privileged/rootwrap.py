# SPDX-License-Identifier: Apache-2.0
"""Run programs and make links as root, or as the user of the service.

``execute`` is what an :class:`os_brick.executor.Executor` runs its commands with unless its caller
supplies another function. Its keywords are those of ``oslo_concurrency.processutils.execute``, and:

``timeout`` (600)
    Seconds after which the process group gets ``signal`` (SIGTERM), and two seconds later SIGKILL.
    The caller is released then, whatever became of the processes. 0 or None is no limit.
``raise_timeout`` (True)
    Raise ``ExecutionTimeout`` at the timeout. Only False makes it a result, ``("", text)``: which
    exit codes are accepted has no influence.
``attempts`` (1), ``interval`` (1), ``backoff_rate`` (2)
    Number of tries, and the pause before try n + 1: ``interval * backoff_rate ** n`` seconds.
    ``delay_on_retry`` brings back processutils' random pause (True) or none (False).
"""

from __future__ import annotations

import logging
import os
import stat
from typing import Any

from os_brick import exception, masking, privileged
from os_brick.privileged import process

LOG = logging.getLogger(__name__)

_OF_TRIES = ("attempts", "interval", "backoff_rate", "delay_on_retry", "log_errors", "loglevel")
_OF_WORDS = ("run_as_root", "root_helper", "prlimit", "python_exec")
_HOOKS = ("on_execute", "on_completion", "preexec_fn")


def _take(kwargs: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: kwargs.pop(name) for name in names if name in kwargs}


def _tries(kwargs: dict[str, Any]) -> process.Tries:
    """How often to try, taken out of the keywords. The log level stays in: one run logs too."""
    tries = process.Tries(**_take(kwargs, _OF_TRIES))
    kwargs["loglevel"] = tries.loglevel
    return tries


def custom_execute(*cmd: Any, **kwargs: Any) -> process.Output:
    """Run a program in this process, with this process's rights.

    :param cmd: the words of the command.
    :param kwargs: see the module.
    :returns: ``(stdout, stderr)`` as text.
    :raises oslo_concurrency.processutils.ProcessExecutionError: exit code not accepted.
    :raises os_brick.exception.ExecutionTimeout: it did not end in time.
    :raises OSError: it could not be started.
    """
    tries = _tries(kwargs)
    words = process.words_of(cmd, shell=bool(kwargs.get("shell")), **_take(kwargs, _OF_WORDS))
    options = process.Options(**kwargs)
    return tries.run(lambda: process.run(words, options))


def execute(*cmd: Any, **kwargs: Any) -> process.Output:
    """Run a program, as root if ``run_as_root`` is true.

    ``root_helper`` is accepted and ignored: root work is done by the privileged daemon. Pauses
    between tries are made here, so that none of the daemon's threads waits. The hooks
    ``on_execute``, ``on_completion`` and ``preexec_fn`` are functions, which cannot be sent to the
    daemon: with root they are left out, with a warning.

    :returns: ``(stdout, stderr)`` as text.
    :raises oslo_concurrency.processutils.ProcessExecutionError: exit code not accepted, or (with
        ``description``) the program could not be started.
    :raises os_brick.exception.ExecutionTimeout: it did not end in time.
    """
    run_as_root = kwargs.pop("run_as_root", False)
    kwargs.pop("root_helper", None)
    try:
        if run_as_root:
            return _execute_by_daemon(cmd, kwargs)
        return custom_execute(*cmd, **kwargs)
    except OSError as exc:
        raise process.not_started(cmd, exc) from exc


def _execute_by_daemon(cmd: tuple[Any, ...], kwargs: dict[str, Any]) -> process.Output:
    tries = _tries(kwargs)
    words = process.words_of(cmd, **_take(kwargs, ("prlimit", "python_exec")))
    accepted = kwargs.get("check_exit_code")
    if accepted is not None and not isinstance(accepted, int):
        kwargs["check_exit_code"] = list(accepted)  # Only plain data crosses; a set is none.
    if privileged.default.client_mode:
        dropped = [name for name in _HOOKS if kwargs.pop(name, None) is not None]
        if dropped:
            LOG.warning(
                "%s cannot be called for %s: it runs in the privileged daemon",
                ", ".join(dropped),
                masking.command_text(words),
            )
    return tries.run(lambda: execute_root(*words, **kwargs))


class _ShownText(str):
    """Output of a program; in the daemon's debug line about the result its secrets are masked."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(masking.mask_text(str(self)))


@privileged.default.entrypoint
def execute_root(*cmd: Any, **kwargs: Any) -> process.Output:
    """Run any program as root, without a shell.

    It stays for services that call it. The library itself goes through :func:`execute`.

    :raises TypeError: ``shell`` or ``run_as_root`` is among the keywords.
    """
    stdout, stderr = custom_execute(*cmd, shell=False, run_as_root=False, **kwargs)
    if isinstance(stdout, str):
        return _ShownText(stdout), _ShownText(stderr)
    return stdout, stderr


# --- links --------------------------------------------------------------------------------------


@privileged.default.entrypoint
def unlink_root(*links: str, **kwargs: bool) -> None:
    """Remove links (or files) as root.

    :param links: absolute paths. A block or character device is refused: a device node that is
        lost comes back with the next boot only (bug 1964379).
    :param no_errors: (False) never raise; what failed is logged.
    :param raise_at_end: (False) try all, then raise an ``ExceptionChainer``. Otherwise the first
        failure is raised and the rest stays.
    :raises OSError: a link could not be removed; missing is a failure too.
    """
    no_errors = kwargs.pop("no_errors", False)
    raise_at_end = kwargs.pop("raise_at_end", False)
    if kwargs:
        raise TypeError(f"unlink_root() got unexpected keyword arguments {sorted(kwargs)}")
    errors = exception.ExceptionChainer()
    for link in links:
        with errors.context(no_errors or raise_at_end, "Error unlinking %s", link):
            _unlink(link)
    if errors and raise_at_end and not no_errors:
        raise errors


@privileged.default.entrypoint
def link_root(target: str, link_name: str, force: bool = True) -> None:
    """Make a symbolic link as root, as ``ln -s`` does.

    :param target: what the link contains.
    :param link_name: absolute path of the link.
    :param force: replace whatever is there, in one step: nobody sees the path missing.
    :raises OSError: it could not be made; without ``force`` also where something is there.
    """
    _check_path(link_name)
    LOG.debug("Creating %s link from %s to %s", "forced" if force else "plain", link_name, target)
    if not force:
        os.symlink(target, link_name)
        return
    # rename(2) replaces atomically, and acts on the link itself, not on what it points to.
    temporary = f"{link_name}.{os.urandom(6).hex()}"
    os.symlink(target, temporary)
    try:
        os.rename(temporary, link_name)
    except OSError:
        os.unlink(temporary)
        raise


def _unlink(link: str) -> None:
    _check_path(link)
    mode = os.lstat(link).st_mode
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        raise PermissionError(f"{link} is a device, not a link")
    os.unlink(link)


def _check_path(path: str) -> None:
    # The daemon's working directory is not the caller's, a relative path would mean another file.
    if not os.path.isabs(path) or path.endswith("/"):
        raise exception.InvalidParameterValue(err=f"{path!r} is no absolute path of a link")
