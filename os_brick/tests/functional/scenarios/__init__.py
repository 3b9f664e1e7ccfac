# SPDX-License-Identifier: Apache-2.0
"""Scenarios: one function each, in modules named after their protocol (``iscsi_attach``).

To add some, put a module here; its functions marked with ``scenario`` are found by
themselves.  The first part of the module's name is the group they can be run by.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..guest.daemons import MultipathConfig

if TYPE_CHECKING:
    from ..guest.lab import Lab

Body = Callable[["Lab"], None]
#: The limit of a scenario of the smoke set: one that hangs leaves time for all others.
SMOKE_S = 120.0
#: The attribute by which a marked function is found.
_MARK = "scenario"


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One scenario and what it needs."""

    name: str
    title: str
    body: Body
    #: Seconds on the machine's clock after which it has failed, its final look included.
    limit_s: float
    groups: frozenset[str]
    #: How multipathd runs; None: it does not run.
    multipath: MultipathConfig | None
    #: Options of the library's group, such as ``call_timeout``.
    options: dict[str, int]
    #: Scenarios with a lower rank run first: slow and violent ones last.
    rank: int


def scenario(
    title: str,
    *,
    limit_s: float = 180,
    groups: Sequence[str] = (),
    multipath: MultipathConfig | None = MultipathConfig(),  # noqa: B008 - frozen
    options: dict[str, int] | None = None,
    rank: int = 0,
) -> Callable[[Body], Body]:
    """Mark a function as a scenario; its name is the scenario's name."""

    def mark(body: Body) -> Body:
        protocol = body.__module__.rpartition(".")[2].partition("_")[0]
        made = Scenario(
            name=body.__name__,
            title=title,
            body=body,
            limit_s=limit_s,
            groups=frozenset({protocol, *groups}),
            multipath=multipath,
            options=dict(options or {}),
            rank=rank,
        )
        setattr(body, _MARK, made)
        return body

    return mark


def load_all() -> list[Scenario]:
    """Return every scenario of every module here, in running order."""
    found: list[Scenario] = []
    for module in sorted(name for _, name, _ in pkgutil.iter_modules(__path__)):
        content = importlib.import_module(f"{__name__}.{module}")
        for value in vars(content).values():
            made = getattr(value, _MARK, None)
            if isinstance(made, Scenario) and value.__module__ == content.__name__:
                found.append(made)
    names = [each.name for each in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"scenarios with the same name: {', '.join(sorted(twice))}")
    return sorted(found, key=lambda each: each.rank)


def choose(found: Sequence[Scenario], words: Sequence[str]) -> list[Scenario]:
    """Return the scenarios that the words name: names, patterns, or groups; all if none.

    :raises ValueError: a word names nothing.
    """
    if not words or list(words) == ["all"]:
        return list(found)
    chosen: set[str] = set()
    for word in words:
        hits = {e.name for e in found if word in e.groups or fnmatch.fnmatch(e.name, word)}
        if not hits:
            raise ValueError(f"no scenario, group or pattern {word!r}: see 'tools/lab list'")
        chosen |= hits
    return [each for each in found if each.name in chosen]
