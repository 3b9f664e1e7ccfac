# SPDX-License-Identifier: Apache-2.0
"""Asking each connector what storage has to know of this host, without letting one spoil the
others."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

from oslo_log import log as logging

from os_brick import utils
from os_brick.initiator.initiator_connector import InitiatorConnector
from os_brick.initiator.linux.call import Call, SystemClock

LOG = logging.getLogger(__name__)

# All probes together: an attach waits for them.
_LIMIT_S = 30.0


class _GivenUp:
    """Probes that were waited for in vain: while one hangs it is not started again, so threads do
    not pile up. One that another call waits for at the same moment is none of them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._hanging: set[tuple[str, Call]] = set()

    def holds(self, name: str) -> bool:
        """Tell whether a probe that was given up still runs."""
        with self._mutex:
            return any(name == one for one, _call in self._hanging)

    def add(self, names: Iterable[str], call: Call, ended: Collection[str]) -> None:
        """Enter the probes of a call that have not ended."""
        with self._mutex:
            self._hanging.update((name, call) for name in names if name not in ended)

    def end(self, name: str, call: Call, ended: set[str]) -> None:
        """Note that a probe of a call has ended."""
        with self._mutex:
            ended.add(name)
            self._hanging.discard((name, call))


_given_up = _GivenUp()


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

    began: set[str] = set()
    ended: set[str] = set()

    def probe(name: str) -> dict[str, Any]:
        began.add(name)
        try:
            return fitting[name].get_connector_properties(root_helper, **keywords)
        finally:
            _given_up.end(name, call, ended)

    tasks = {}
    for name in fitting:
        if _given_up.holds(name):
            LOG.warning("%s does not tell its properties: an earlier question still runs", name)
        else:
            tasks[name] = partial(probe, name)
    merged: dict[str, Any] = {}
    # In threads, a single one too: it may hang.
    running = call.side_by_side(tasks)
    call.wait_until(running.all_ended, what="connectors", event=running.news, told=True)
    outcomes = running.outcomes()
    _given_up.add(tuple(began), call, ended)
    for name, outcome in outcomes.items():
        if outcome.error is not None:
            LOG.warning("%s could not tell its properties: %s", name, outcome.error)
        merged.update(outcome.value or {})
    return merged
