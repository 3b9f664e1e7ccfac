# SPDX-License-Identifier: Apache-2.0
"""Trying again by the exit code of a program; reached as ``os_brick.utils.retry_if_exit_code``.

A module of its own since tenacity takes longer to load than all else that services import here.
"""

from __future__ import annotations

from collections.abc import Iterable

import tenacity
from oslo_concurrency import processutils


class retry_if_exit_code(tenacity.retry_if_exception):
    """Retry when a program ended with one of the given exit codes.

    It serves :func:`os_brick.utils.retry`, and tenacity's own decorator as any of its conditions
    does (``retry_if_exit_code(5) | retry_if_result(…)``).

    :param codes: an int, or a tuple of them.
    """

    def __init__(self, codes: int | Iterable[int]) -> None:
        self.codes = (codes,) if isinstance(codes, int) else tuple(codes)
        super().__init__(self._has_code)

    def _has_code(self, exc: BaseException) -> bool:
        return isinstance(exc, processutils.ProcessExecutionError) and exc.exit_code in self.codes
