# SPDX-License-Identifier: Apache-2.0
"""LightOS's discovery client on this host: a directory of files that tell it what to connect, and a
port at which it tells how it fares."""

from __future__ import annotations

import os

from os_brick import exception
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.host import Host
from os_brick.initiator.vendors import http
from os_brick.initiator.vendors.http import Request, Server
from os_brick.privileged import lightos as verbs

# It runs on this host, or near it.
_ANSWER_LIMIT_S = 2.0
_FILE_LIMIT_S = 60.0
_OK = 200


def answers(address: str, port: int, limit_s: float = _ANSWER_LIMIT_S) -> bool:
    """Tell whether a discovery client answers within a time; whatever keeps it from that is a
    no."""
    try:
        answer = http.exchange(Server(address, port), Request("HEAD", "/metrics"), limit_s)
    except http.FAILURES:
        return False
    return answer.status == _OK


class Files:
    """The client's directory.

    :param foreign: changes go through the programs of the host, in the name of a service that has
        its own way of running them.
    """

    def __init__(self, host: Host, directory: str, *, foreign: bool) -> None:
        self._host = host
        self._directory = directory
        self._foreign = foreign

    def path(self, uuid: str) -> str:
        """Return where a volume's file is, or would be."""
        return os.path.join(self._directory, f"{uuid}.conf")

    def has(self, uuid: str) -> bool:
        """Tell whether a volume's file is there."""
        return os.path.exists(self.path(uuid))

    def write(self, call: Call, uuid: str, text: str) -> None:
        """Make a volume's file, whole or not at all.

        :raises BrickException: there is no such directory.
        :raises OSError: it could not be made.
        :raises ProcessExecutionError: nor by a program.
        """
        if not os.path.isdir(self._directory):
            raise exception.BrickException(
                f"{self._directory} is no directory: is LightOS's discovery client installed?"
            )
        path = self.path(uuid)
        with call.step(f"write {path}"):
            if not self._foreign:
                verbs.write_dsc_file(path, text)
                return
            folder = os.path.dirname(os.path.normpath(self._directory))
            temporary = os.path.join(folder, f".{uuid}.{os.urandom(6).hex()}")
            try:
                self._run(call, "tee", temporary, stdin=text)
                self._run(call, "chmod", "0644", temporary)
                self._run(call, "mv", "-f", "-T", temporary, path)
            except BaseException:
                self._host.programs.run(call, "rm", "-f", temporary, limit_s=_FILE_LIMIT_S)
                raise

    def delete(self, call: Call, uuid: str) -> None:
        """Remove a volume's file; one that is not there is no error.

        :raises OSError: it is still there.
        :raises ProcessExecutionError: a program could not remove it.
        """
        path = self.path(uuid)
        with call.step(f"delete {path}", quiet=True):
            if self._foreign:
                self._run(call, "rm", "-f", path)
            else:
                verbs.delete_dsc_file(path)

    def _run(self, call: Call, *words: str, stdin: str | None = None) -> None:
        self._host.programs.run(call, *words, limit_s=_FILE_LIMIT_S, stdin=stdin).check()
