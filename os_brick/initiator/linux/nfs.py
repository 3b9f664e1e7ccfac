# SPDX-License-Identifier: Apache-2.0
"""NFS mount options, and what the failure of a mount says. Source: nfs(5), mount.nfs(8)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from oslo_concurrency import processutils

from os_brick import exception

#: How an option begins that names a version.
VERSION = r"nfsvers|vers|v\d"

# What mount.nfs says of a server that does not answer, that has not this share for us, or of a
# mount point: another version would only wait once more. "No such file or directory" and "access
# denied" are not among it: servers without a common root for NFSv4 say so of shares that version 3
# reaches.
_NOT_THE_VERSION = re.compile(
    r"connection refused|connection timed out|timed out|no route to host"
    r"|network is (?:unreachable|down)|host is (?:unreachable|down)|connection reset"
    r"|failed to resolve server|name or service not known|temporary failure in name resolution"
    r"|is busy or already mounted|mount point .* does not exist|must be superuser"
    r"|operation not permitted",
    re.IGNORECASE,
)


def split_options(options: str | None) -> list[str]:
    """Return the options of a comma-separated list."""
    return [option.strip() for option in (options or "").split(",") if option.strip()]


def find_option(options: str | None, pattern: str) -> int:
    """Return the place (from 1 on) of the first option that begins like a pattern; 0 for none."""
    for place, option in enumerate(split_options(options), start=1):
        if re.match(pattern, option):
            return place
    return 0


def set_option(options: str | None, name: str, value: str | None = None) -> str:
    """Return options with one of them, by its name, set anew at the end."""
    others = [one for one in split_options(options) if one.partition("=")[0] != name]
    return ",".join([*others, name if value is None else f"{name}={value}"])


def names_version(flags: Sequence[str]) -> bool:
    """Tell whether words for ``mount`` name an NFS version."""
    expected = False
    for flag in flags:
        options = flag if expected else None
        expected = flag in ("-o", "--options")
        if flag.startswith("--options="):
            options = flag.removeprefix("--options=")
        elif flag.startswith("-o") and len(flag) > 2:
            options = flag[2:]
        if find_option(options, VERSION):
            return True
    return False


def may_be_the_version(error: processutils.ProcessExecutionError) -> bool:
    """Tell whether a mount that failed may succeed by another version of NFS."""
    if isinstance(error, exception.ExecutionTimeout) or not isinstance(error.exit_code, int):
        return False
    said = f"{error.stdout or ''}\n{error.stderr or ''}"
    return _NOT_THE_VERSION.search(said) is None
