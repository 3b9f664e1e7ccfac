# SPDX-License-Identifier: Apache-2.0
"""What ``multipath -l`` prints, as values. No program is run here and no file is read.

The library itself finds maps in sysfs; this is for callers that ask for the listing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from os_brick.initiator.linux.scsi import Hctl

#: Words that multipath puts before a map's name when it changes it.
ACTIONS = ("unchanged:", "reject:", "reload:", "switchpg:", "rename:", "create:", "resize:")

# Complaints that come mixed with the listing: "Mar 01 10:00:00 | text", in newer versions
# "2459.475078 | text", the seconds since boot.
_COMPLAINT = re.compile(r"(?:\w{3} +\d+ \d\d:\d\d:\d\d|\d+\.\d+) \|")
_HEADER = re.compile(r"(?P<name>\S+)(?: +\((?P<wwid>[^)]+)\))? +(?:dm-\d+|undef)(?: |$)")
_PATH = re.compile(r"[ `|\\_+-]*\s(?P<hctl>\d+:\d+:\d+:\d+)\s+(?P<disk>[A-Za-z]\S*)\s")


@dataclass(frozen=True, slots=True)
class ListedMap:
    """A map as it is listed: its name, its wwid, and (kernel name, address) of its paths."""

    name: str
    wwid: str
    paths: tuple[tuple[str, Hctl], ...]


def parse_listing(text: str) -> ListedMap | None:
    """Return the first map in the output of ``multipath -l``; None if there is none.

    Complaints, blank lines, and lines of paths that are gone (``#:#:#:#``) are skipped.
    """
    found: tuple[str, str] | None = None
    paths: list[tuple[str, Hctl]] = []
    for line in text.splitlines():
        if _COMPLAINT.match(line.strip()):
            continue
        header = _parse_header(line)
        if header is not None and found is not None:
            break  # the next map
        if header is not None:
            found = header
        path = _PATH.match(f"{line} ") if found is not None else None
        hctl = Hctl.parse(path["hctl"]) if path else None
        if path and hctl is not None:
            paths.append((path["disk"], hctl))
    return None if found is None else ListedMap(*found, tuple(paths))


def _parse_header(line: str) -> tuple[str, str] | None:
    """Return name and wwid in a map's first line; None if it is another line."""
    first, _, rest = line.strip().partition(" ")
    match = _HEADER.match(rest.strip() if first in ACTIONS else line.strip())
    if match is None:
        return None
    return match["name"], match["wwid"] or match["name"]
