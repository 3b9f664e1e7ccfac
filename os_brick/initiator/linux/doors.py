# SPDX-License-Identifier: Apache-2.0
"""The doors to the host as a part of connectors and helpers that run programs."""

from __future__ import annotations

from typing import Any

from os_brick import executor
from os_brick.initiator.linux.host import Host


class HasHost(executor.Executor):
    """An executor whose host goes with its execute function.

    :param host: the doors to the host, for tests (:class:`~os_brick.initiator.linux.host.Host`).
    """

    def __init__(
        self,
        root_helper: str | None,
        execute: executor.ExecuteFunction | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        given = kwargs.pop("host", None)
        self._given_host: Host | None = given if isinstance(given, Host) else None
        super().__init__(root_helper, execute, *args, **kwargs)

    def set_execute(self, execute: executor.ExecuteFunction | None) -> None:
        """Run all further programs, and make all changes of the host, by this function."""
        super().set_execute(execute)
        self._host: Host | None = None

    def set_root_helper(self, helper: str | None) -> None:
        """Hand this root helper on with all further commands."""
        super().set_root_helper(helper)
        self._host = None

    def _execute(self, *args: Any, **kwargs: Any) -> Any:
        """Run a program on the host."""
        if self._given_host is not None and not self.has_own_execute:
            return self._given_host.programs.execute(*args, **kwargs)
        return super()._execute(*args, **kwargs)

    @property
    def runs_here(self) -> bool:
        """Whether programs are those of this process's own host: nobody gave another way."""
        return self._given_host is None and not self.has_own_execute

    @property
    def host(self) -> Host:
        """The doors to the host."""
        if self._host is None:
            own = self.has_own_execute
            if self._given_host is None:
                self._host = Host.of_execute(self._execute, self._root_helper, foreign=own)
            elif own:
                self._host = self._given_host.with_execute(self._execute, self._root_helper)
            else:
                self._host = self._given_host
        return self._host
