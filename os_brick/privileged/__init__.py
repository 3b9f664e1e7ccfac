# SPDX-License-Identifier: Apache-2.0
"""The only code that runs as root.

Entry points are functions of modules below this package, marked ``@privileged.default.entrypoint``.
Called by a service they run in oslo.privsep's daemon, which is started on first use.

There are two contexts, but only ``default`` may be needed: the filter files of the services let no
other start. An entry point whose *result* is a secret returns it as :class:`Hidden`; what the
daemon then writes to its debug log is ``***``, and the caller gets the text.

The contexts are made when first asked for: their package takes half of the time that importing this
library may take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oslo_privsep.priv_context import PrivContext

    from os_brick.privileged._contexts import brick_privsep_hide_output as brick_privsep_hide_output
    from os_brick.privileged._contexts import default as default

# CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH (linux/capability.h). The second lets the daemon read
# library files that belong to another user, as in virtual environments and containers (bug
# 1884059).
capabilities = [21, 2]

_CONTEXTS = ("default", "brick_privsep_hide_output")


def __getattr__(name: str) -> PrivContext:
    if name in _CONTEXTS:
        from os_brick.privileged import _contexts

        context: PrivContext = getattr(_contexts, name)
        return context
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Hidden(str):
    """A secret text as the result of an entry point: shown as ``***``, otherwise a str.

    oslo.privsep's daemon writes ``repr`` of each result to its log at DEBUG. On its way to the
    caller it becomes an ordinary str.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"
