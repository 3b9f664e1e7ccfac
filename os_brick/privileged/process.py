# SPDX-License-Identifier: Apache-2.0
"""Run one program, with a limit that holds.

oslo.concurrency's ``processutils.execute`` is not used, for three reasons. Its ``preexec_fn`` makes
Python fork instead of vfork: 3.5 ms a program against 0.9 ms here, more where the service is large.
At its timeout it leaves the process running. And it hides secrets by patterns over the joined
command, which lets the tail of ``a'b`` through. Its keywords, its error class and its log lines are
kept.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

import six

from os_brick import exception, masking

LOG = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 600

# How long a process group may take to end by itself after it was signalled, and how long the kernel
# may take to end it after SIGKILL. A caller is released at most this long after its limit.
GRACE_S = 2.0
KILL_S = 1.0

_LOG_ALL_ERRORS = 1

Words = tuple[str, ...]
Output = tuple[Any, Any]  # two str, or two bytes with binary=True

# The seam for pauses between tries.
pause = time.sleep


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run a program once. Names and meanings are those of ``processutils.execute``.

    :ivar timeout: seconds; 0 or None is no limit.
    :ivar signal: sent to the process group when the time is up; SIGKILL follows after a grace time.
    :ivar raise_timeout: False makes a timeout an ordinary result, ``("", text)``.
    """

    process_input: str | bytes | None = None
    check_exit_code: bool | int | Iterable[int] | None = True
    timeout: float | None = DEFAULT_TIMEOUT_S
    signal: int = signal.SIGTERM
    raise_timeout: bool | None = True
    binary: bool = False
    shell: bool = False
    cwd: str | None = None
    env_variables: dict[str, str] | None = None
    loglevel: int = logging.DEBUG
    on_execute: Callable[[subprocess.Popen[bytes]], object] | None = None
    on_completion: Callable[[subprocess.Popen[bytes]], object] | None = None
    preexec_fn: Callable[[], object] | None = None

    def accepts(self, exit_code: int) -> bool:
        """Whether the program succeeded."""
        accepted = self.check_exit_code
        if accepted is False:
            return True
        if accepted is True or accepted is None:
            return exit_code == 0
        return exit_code == accepted if isinstance(accepted, int) else exit_code in accepted


def words_of(
    cmd: Iterable[object],
    *,
    run_as_root: bool = False,
    root_helper: str = "",
    shell: bool = False,
    prlimit: Any = None,
    python_exec: str | None = None,
) -> Words:
    """The words to start: those of the command behind the root helper and the limits asked for.

    :raises oslo_concurrency.processutils.NoRootWrapSpecified: root is wanted, this is not root, and
        there is no helper.
    """
    words = tuple(str(word) for word in cmd)
    if run_as_root and os.geteuid() != 0:
        if not root_helper:
            from oslo_concurrency import processutils

            raise processutils.NoRootWrapSpecified(
                message="Command requested root, but did not specify a root helper."
            )
        words = (
            (f"{root_helper} {words[0]}", *words[1:])
            if shell
            else (*shlex.split(root_helper), *words)
        )
    if prlimit:
        python = python_exec or sys.executable
        words = (python, "-m", "oslo_concurrency.prlimit", *prlimit.prlimit_args(), "--", *words)
    return words


def run(words: Words, options: Options) -> Output:
    """Start a program and wait for its end.

    :returns: what it wrote to stdout and stderr: text (bytes that are no UTF-8 are dropped), or
        bytes if so asked.
    :raises oslo_concurrency.processutils.ProcessExecutionError: it ended with an exit code that is
        not accepted.
    :raises os_brick.exception.ExecutionTimeout: it did not end in time. Its process group has been
        killed, or the error says that it could not be.
    :raises OSError: it could not be started.
    """
    logged = LOG.isEnabledFor(options.loglevel)
    began = time.monotonic()
    if logged:
        LOG.log(options.loglevel, "Running cmd (subprocess): %s", masking.command_text(words))
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        shell=options.shell,
        cwd=options.cwd,
        env=options.env_variables,
        preexec_fn=options.preexec_fn,  # noqa: PLW1509 - the caller's
        process_group=0,  # So that its children can be stopped with it.
    )
    output = None
    try:
        if options.on_execute:
            options.on_execute(process)
        output = _communicate(process, options)
        left = "" if output else _stop(process, words, options)
    except BaseException:
        # The hook failed, or somebody wants this thread to stop: nobody would wait for the process.
        _end(process, signal.SIGKILL, grace_s=0)
        raise
    finally:
        if options.on_completion:
            options.on_completion(process)
    if output is None:
        return _timed_out(process, words, options, left)
    stdout, stderr = output
    if logged:
        LOG.log(
            options.loglevel,
            'CMD "%s" returned: %s in %0.3fs',
            masking.command_text(words),
            process.returncode,
            time.monotonic() - began,
        )
    if not options.accepts(process.returncode):
        raise _failure(words, process.returncode, stdout, stderr)
    return (stdout, stderr) if options.binary else (decode(stdout), decode(stderr))


def _communicate(process: subprocess.Popen[bytes], options: Options) -> tuple[bytes, bytes] | None:
    """What the program wrote, None if it did not end in time.

    TimeoutExpired ends here: its text is the command with all secrets, and it would be shown as
    the context of whatever is raised while it is handled.
    """
    stdin = None if options.process_input is None else six.ensure_binary(options.process_input)
    try:
        return process.communicate(stdin, timeout=options.timeout or None)
    except subprocess.TimeoutExpired:
        return None


def decode(output: bytes) -> str:
    """Text of a program's output; what is no UTF-8 is dropped.

    (Bug 1602346: the messages of a localised dd.)
    """
    return six.ensure_text(output, errors="ignore")


def _failure(words: Words, exit_code: int, stdout: bytes, stderr: bytes) -> Exception:
    from oslo_concurrency import processutils

    secrets = masking.secrets_of_command(words)
    failure: Exception = processutils.ProcessExecutionError(
        stdout=masking.mask_text(decode(stdout), secrets),
        stderr=masking.mask_text(decode(stderr), secrets),
        exit_code=exit_code,
        cmd=masking.command_text(words),
    )
    return failure


def not_started(words: Iterable[object], error: OSError) -> Exception:
    """A program that could not be started, as the one class of error that callers handle."""
    from oslo_concurrency import processutils

    words = tuple(words)
    failure: Exception = processutils.ProcessExecutionError(
        cmd=masking.command_text(words),
        description=masking.mask_text(str(error), masking.secrets_of_command(words)),
    )
    return failure


# --- when the time is up --------------------------------------------------------------------------


def _stop(process: subprocess.Popen[bytes], words: Words, options: Options) -> str:
    """End a process whose time is up; returns what is left over."""
    text = masking.command_text(words)
    LOG.warning(
        "Stopping %(cmd)s with signal %(signal)s after %(time)ss.",
        {"cmd": text, "signal": int(options.signal), "time": options.timeout},
    )
    left = _end(process, options.signal, GRACE_S)
    if left:
        LOG.warning("%(what)s: %(cmd)s", {"what": left, "cmd": text})
    return left


def _timed_out(
    process: subprocess.Popen[bytes], words: Words, options: Options, left: str
) -> Output:
    text = masking.command_text(words)
    message = (
        f"Time out on proc {process.pid} after waiting {options.timeout} seconds "
        f"when running {text}"
    )
    if left:
        message = f"{message} ({left})"
    if options.raise_timeout is not None and not options.raise_timeout:
        return (b"", message.encode()) if options.binary else ("", message)
    raise exception.ExecutionTimeout(stdout="", stderr=message, cmd=text)


def _end(process: subprocess.Popen[bytes], first_signal: int, grace_s: float) -> str:
    """End a process and its group, without waiting for what cannot be ended.

    :returns: what is left over, "" if nothing is.
    """
    _signal_group(process, first_signal)
    _wait(process, grace_s)
    # Also when the process has ended: its children may ignore the first signal. It has not been
    # reaped, so that the number of the group cannot belong to anybody else yet.
    _signal_group(process, signal.SIGKILL)
    closed = _wait(process, KILL_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        _close(pipe)
    if process.poll() is None:
        # In uninterruptible sleep. The subprocess module reaps it when it ends.
        return f"process {process.pid} could not be killed and is still running"
    return "" if closed else f"a child of process {process.pid} left its group and is still running"


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    if process.returncode is not None:
        return
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError) as exc:
        # Gone, or started through sudo: then it is not ours to signal.
        LOG.debug("Cannot send signal %s to process group %s: %s", number, process.pid, exc)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until a process has ended, which is not reaped, and everybody has closed its output,
    which is discarded.

    :returns: whether both happened within the time.
    """
    try:
        pidfd = os.pidfd_open(process.pid)  # readable when the process has ended
    except OSError:
        # Linux before 5.3, or a sandbox: closed output has to do.
        pidfd = -1
    deadline = time.monotonic() + seconds
    try:
        with selectors.DefaultSelector() as selector:
            for pipe in (process.stdout, process.stderr):
                if pipe is not None and not pipe.closed:
                    selector.register(pipe, selectors.EVENT_READ)
            if pidfd >= 0:
                selector.register(pidfd, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    return False
                for key, _events in ready:
                    # The pidfd stays readable, output is at its end when it reads as empty.
                    if key.fd == pidfd or not os.read(key.fd, 65536):
                        selector.unregister(key.fileobj)
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    return True


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is None:
        return
    try:
        pipe.close()
    except OSError:
        # Closing stdin writes what is buffered for it, to a process that is gone.
        LOG.debug("Input of a stopped process was lost", exc_info=True)


# --- tries ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """How often to try, and the pauses before the second and later tries.

    :ivar attempts: number of tries; less than one counts as one.
    :ivar interval: seconds; the pause before try n + 1 is ``interval * backoff_rate ** n``.
    :ivar delay_on_retry: None for that; True for oslo.concurrency's random 0.2 to 2 s; False for
        no pause.
    :ivar log_errors: 1 logs every failure at ``loglevel``, 2 the last one only (``LogErrors``).
    """

    attempts: int = 1
    interval: float = 1
    backoff_rate: float = 2
    delay_on_retry: bool | None = None
    log_errors: int = 0
    loglevel: int = logging.DEBUG

    def pause_after(self, failed: int) -> float:
        """Seconds to pause when ``failed`` tries have failed."""
        if self.delay_on_retry is None:
            return self.interval * self.backoff_rate**failed
        # As oslo.concurrency draws it; nothing secret depends on it.
        return random.randint(20, 200) / 100 if self.delay_on_retry else 0  # noqa: S311

    def run(self, once: Callable[[], Output]) -> Output:
        """Call ``once`` until it succeeds. The last failure is raised.

        What is no failure of a program (a wrong argument, say) is raised at once.
        """
        for number in range(1, self.attempts):
            try:
                return once()
            except Exception as exc:
                if not is_failure(exc):
                    raise
                if self.log_errors == _LOG_ALL_ERRORS:
                    self._log(exc)
            seconds = self.pause_after(number)
            LOG.debug("Try %s of %s failed, the next in %ss", number, self.attempts, seconds)
            if seconds > 0:
                pause(seconds)
        try:
            return once()
        except Exception as exc:
            if self.log_errors and is_failure(exc):
                self._log(exc)
            raise

    def _log(self, exc: Exception) -> None:
        LOG.log(self.loglevel, "%s: %s", type(exc).__name__, exc)


def is_failure(exc: Exception) -> bool:
    """Whether this is a program that failed, did not end, or could not be started."""
    if isinstance(exc, OSError):
        return True
    from oslo_concurrency import processutils

    return isinstance(exc, processutils.ProcessExecutionError)
