# SPDX-License-Identifier: Apache-2.0
"""Running a program within a call: its limit, its line in the timeline, its exit code as a
value."""

from __future__ import annotations

import subprocess  # noqa: TID251 - for the class of an error that foreign functions raise
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import six
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.linux.call import Call

#: An execute function as services supply it: ``execute(*cmd, **kwargs) -> (stdout, stderr)``.
Execute = Callable[..., Any]

# What rootwrap itself answers (not the program): not found, bad configuration, no command, not
# allowed.
ROOTWRAP_CODES = frozenset({96, 97, 98, 99})

# 0 means "no limit" to execute functions, so a limit that is nearly over must not become 0.
_SHORTEST_LIMIT_S = 0.1


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended.

    :ivar code: its exit code; None if it could not be started or was stopped at its time limit.
    :ivar error: what the execute function raised, if it raised.
    """

    code: int | None
    out: str
    err: str
    error: processutils.ProcessExecutionError | None = None

    def check(self, ok: Collection[int] = (0,)) -> Result:
        """Return itself if the exit code is one of ``ok``.

        :raises ProcessExecutionError: as the execute function raised it.
        """
        if self.code in ok:
            return self
        raise self.error or processutils.ProcessExecutionError(
            stdout=self.out, stderr=self.err, exit_code=self.code or 1
        )

    @property
    def summary(self) -> str:
        """How it ended, in a few words: exit code and the last line it said."""
        ended = (
            f"exit code {self.code}"
            if self.code is not None
            else "not ended in time or not started"
        )
        said = (self.err or self.out).strip().splitlines()
        return f"{ended}: {said[-1].strip()}" if said else ended


class Programs:
    """Runs programs, as root if not said otherwise, through the execute function of the connector's
    owner."""

    def __init__(self, execute: Execute, root_helper: str | None) -> None:
        #: The execute function itself.
        self.execute = execute
        self._root_helper = root_helper

    def run(
        self,
        call: Call,
        *words: str,
        limit_s: float,
        shown: int = 0,
        stdin: str | None = None,
        as_root: bool = True,
    ) -> Result:
        """Run a program and return how it ended; its exit code raises nothing.

        :param words: the program and its arguments; there is no shell.
        :param limit_s: seconds after which it is stopped; never beyond the call's deadline.
        :param stdin: text for its standard input.
        :param shown: how many words the timeline shows (all if 0): leave the secrets out.
        :param as_root: False runs it as the user of the service.
        :raises DeadlineExceeded: if the call's time was over before it began.
        """
        line = " ".join(words[: shown or len(words)])
        call.check(line)
        with call.step(line) as step:
            result = self._run(words, max(call.within(limit_s), _SHORTEST_LIMIT_S), stdin, as_root)
            step.outcome = f"exit {result.code}" if result.code is not None else "no answer"
            return result

    def _run(
        self, words: tuple[str, ...], limit_s: float, stdin: str | None, as_root: bool
    ) -> Result:
        # Only what oslo's own processutils.execute knows too: services supply it in place of ours.
        keywords: dict[str, Any] = {} if stdin is None else {"process_input": stdin}
        if as_root:
            keywords.update(run_as_root=True, root_helper=self._root_helper)
        try:
            answer = self.execute(
                *words,
                check_exit_code=[0],
                timeout=limit_s,
                **keywords,
            )
        except processutils.ProcessExecutionError as exc:
            code = exc.exit_code if isinstance(exc.exit_code, int) else None
            return Result(code, _text(exc.stdout), _text(exc.stderr), exc)
        except (OSError, subprocess.TimeoutExpired) as exc:  # only foreign execute functions
            # The text of TimeoutExpired holds the whole command, which may hold a secret.
            why = (
                f"no answer within {limit_s:.0f}s"
                if isinstance(exc, subprocess.TimeoutExpired)
                else str(exc)
            )
            kind = (
                exception.ExecutionTimeout
                if isinstance(exc, subprocess.TimeoutExpired)
                else processutils.ProcessExecutionError
            )
            return Result(None, "", why, kind(cmd=words[0], description=why, stderr=why))
        out, err = answer or ("", "")
        return Result(0, _text(out), _text(err))


def _text(value: str | bytes | None) -> str:
    return six.ensure_text(value or "", errors="ignore")
