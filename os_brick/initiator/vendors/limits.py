# SPDX-License-Identifier: Apache-2.0
"""A limit that holds for what has none of its own: a socket's timeout counts from byte to byte,
and other libraries may have none at all."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from typing import TypeVar

from os_brick import executor
from os_brick.initiator.linux.call import Outcome

T = TypeVar("T")

_SHORTEST_LIMIT_S = 0.01


def run_within(
    limit_s: float, task: Callable[[], T], what: str, abort: Callable[[], None] | None = None
) -> T:
    """Run a task in a thread of its own and return its answer; let go of it at the limit.

    :param what: who does not answer then, for the error.
    :param abort: has the task end, called at the limit; without it the thread goes on by itself.
    :raises TimeoutError: it had not ended by then.
    """
    ended: list[Outcome[T]] = []
    thread = executor.Thread(target=lambda: ended.append(Outcome.of(task)), daemon=True, name=what)
    thread.start()
    thread.join(max(limit_s, _SHORTEST_LIMIT_S))
    if not ended:
        if abort is not None:
            abort()
        raise TimeoutError(
            errno.ETIMEDOUT, f"{what} did not answer within {math.ceil(limit_s)} seconds"
        )
    if ended[0].error is not None:
        raise ended[0].error
    return ended[0].value  # type: ignore[return-value] # None is T's own then
