# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to have a path to a Fibre Channel volume in hand: one attach's at a time.

The kernel may go on with a scan when the attach that asked for it has long returned. What comes of
it is that attach's to see to, so a later one does not look at the path before that is settled.
"""

from __future__ import annotations

import contextlib
from types import TracebackType

from os_brick.initiator.linux.fc_paths import FcPath
from os_brick.initiator.linux.locking import Locks


def _awaited(path: FcPath) -> str:
    return f"{path.lock_name}, awaited"


def is_awaited(locks: Locks, path: FcPath) -> bool:
    """Tell whether another attach waits for its turn with a path."""
    with locks.tried(_awaited(path)) as nobody:
        return not nobody


class Queue:
    """One who waits for his turn with a path, for as long as the block runs.

    :param turn: has the path's lock from the first moment that :meth:`is_mine` is true, and lets go
        of it when it is closed.
    """

    def __init__(self, locks: Locks, path: FcPath, turn: contextlib.ExitStack) -> None:
        self._locks = locks
        self._path = path
        self._turn = turn
        self._mine = False
        self._shown = False
        self._sign = contextlib.ExitStack()

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sign.close()

    def is_mine(self) -> bool:
        """Try for the turn; tell whether it has come."""
        self._mine = self._mine or self._locks.taken(self._path.lock_name, self._turn)
        if not self._mine and not self._shown:
            # Fails at the very moment at which another looks whether somebody waits.
            self._shown = self._locks.taken(_awaited(self._path), self._sign, shared=True)
        return self._mine
