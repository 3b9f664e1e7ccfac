# SPDX-License-Identifier: Apache-2.0
"""The privileged contexts, reached as attributes of ``os_brick.privileged``.

That is the path by which the daemon is told which one it serves.
"""

from typing import Any

from oslo_config import cfg
from oslo_privsep import priv_context

from os_brick import privileged

_SECTION = "privsep_osbrick"

# So that its level can be set apart from the service's own privileged calls (bug 1922052).
_LOGGER = "os_brick.privileged"


class _QuietSection:
    """The options of the section, but with another logger."""

    def __init__(self, section: Any, logger_name: str) -> None:
        self._section = section
        self.logger_name = logger_name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._section, name)


class _QuietContext(priv_context.PrivContext):
    """A context with a logger of its own, though it shares its options with ``default``."""

    @property
    def conf(self) -> Any:
        return _QuietSection(super().conf, "brick_privsep_hide_output")


# A call that hangs keeps one thread of the daemon; oslo.privsep's default, one for each CPU, would
# let two hung volumes stop every other privileged call of the service. Threads are made only when
# needed.
_THREADS = 64

default = priv_context.PrivContext(
    "os_brick.privileged",
    cfg_section=_SECTION,
    pypath="os_brick.privileged.default",
    capabilities=privileged.capabilities,
    logger_name=_LOGGER,
)

# A context sets the defaults of its section: this one must say the same as ``default``.
brick_privsep_hide_output = _QuietContext(
    "os_brick.privileged",
    cfg_section=_SECTION,
    pypath="os_brick.privileged.brick_privsep_hide_output",
    capabilities=privileged.capabilities,
    logger_name=_LOGGER,
)

cfg.CONF.set_default("thread_pool_size", _THREADS, group=_SECTION)
