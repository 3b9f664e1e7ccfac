# SPDX-License-Identifier: Apache-2.0
"""Asking each connector what storage has to know of this host, without letting one spoil the
others."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from typing import Any

from oslo_log import log as logging

from os_brick import utils
from os_brick.initiator.initiator_connector import InitiatorConnector
from os_brick.initiator.linux.call import Call, SystemClock

LOG = logging.getLogger(__name__)

# All probes together: an attach waits for them.
_LIMIT_S = 30.0


class _Running:
    """Probes that have not ended: one that hangs is not started again, so threads do not
    pile up."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._names: set[str] = set()

    def begin(self, name: str) -> bool:
        """Enter a probe; False if it still runs from an earlier call that has given it up."""
        with self._mutex:
            if name in self._names:
                return False
            self._names.add(name)
            return True

    def end(self, name: str) -> None:
        """Strike a probe out."""
        with self._mutex:
            self._names.discard(name)


_given_up = _Running()


def collect(
    classes: Iterable[type[InitiatorConnector]],
    platform: str,
    os_type: str,
    root_helper: str | None,
    **keywords: Any,
) -> dict[str, Any]:
    """Return the merged properties of all connector classes that fit this machine, later ones
    winning.

    :param keywords: handed to each class's ``get_connector_properties``.
    """
    fitting = {
        one.__name__: one
        for one in classes
        if utils.platform_matches(platform, one.platform) and utils.os_matches(os_type, one.os_type)
    }
    call = Call("properties of this host", SystemClock(), _LIMIT_S)

    def probe(name: str) -> dict[str, Any]:
        try:
            return fitting[name].get_connector_properties(root_helper, **keywords)
        finally:
            _given_up.end(name)

    tasks = {}
    for name in fitting:
        if _given_up.begin(name):
            tasks[name] = partial(probe, name)
        else:
            LOG.warning("%s does not tell its properties: an earlier question still runs", name)
    merged: dict[str, Any] = {}
    for name, outcome in call.each(tasks, what="connectors").items():
        if outcome.error is not None:
            LOG.warning("%s could not tell its properties: %s", name, outcome.error)
        merged.update(outcome.value or {})
    return merged
