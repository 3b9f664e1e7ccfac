# SPDX-License-Identifier: Apache-2.0
"""What connectors for RBD have in common: the arguments of ``rbd``, and handles of librbd."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from os_brick import exception
from os_brick.initiator import linuxrbd
from os_brick.initiator.linux import rbd_volume
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.rbd_conf import HandleConf
from os_brick.initiator.linux.rbd_volume import RbdVolume

T = TypeVar("T")


class RBDConnectorMixin:
    """Helpers that need no connector."""

    @staticmethod
    def _sanitize_mon_hosts(hosts: Iterable[str]) -> list[str]:
        """Return monitors' addresses, those of IPv6 in brackets."""
        return rbd_volume.bracketed(hosts)

    @classmethod
    def _get_rbd_args(
        cls, connection_properties: Mapping[str, Any], conf: str | None = None
    ) -> list[str]:
        """Return what every ``rbd`` command is told about the cluster.

        :param conf: path of a configuration file.
        :raises BrickException: the properties cannot be used.
        """
        named = {"name": "any/image", **connection_properties}
        args = RbdVolume.parse(named).program_args
        return [*args, "--conf", conf] if conf else args


def open_handle(
    call: Call, volume: RbdVolume, conf: HandleConf, *, read_only: bool
) -> linuxrbd.RBDVolumeIOWrapper:
    """Connect to the cluster and open an image.

    librados and librbd wait for a cluster that does not answer, in C and for minutes or for ever.
    So they are called in a thread of its own, which is left to itself at the deadline; what it
    opens after that, it closes at once.

    :param conf: belongs to the handle from now on, and is removed with it, or if this fails.
    :raises DeadlineExceeded: the cluster did not answer in time.
    """
    guard = threading.Lock()
    given_up = False
    opened: list[linuxrbd.RBDVolumeIOWrapper] = []

    def task() -> None:
        handle = _open(volume, conf, read_only)
        with guard:
            if not given_up:
                opened.append(handle)
                return
        handle.close()

    name = f"open {volume}"
    with call.step(name):
        running = call.side_by_side({name: task})
        call.wait_until(running.all_ended, what=name, event=running.news)
        with guard:
            given_up = not opened
        error = running.outcomes()[name].error
        if opened:
            return opened[0]
        if running.all_ended():  # there may have been no thread for it
            conf.remove()
        raise error or exception.DeadlineExceeded(what=name, seconds=call.limit_s)


def answer(call: Call, name: str, question: Callable[[], T]) -> T:
    """Return what librbd answers, which waits for ever for a cluster that does not.

    :raises DeadlineExceeded: there was no answer in time; the thread that waits for it goes on.
    """
    with call.step(name):
        running = call.side_by_side({name: question})
        call.wait_until(running.all_ended, what=name, event=running.news)
        outcome = running.outcomes()[name]
        if outcome.error is not None:
            raise outcome.error
        return outcome.value  # type: ignore[return-value]


def _open(volume: RbdVolume, conf: HandleConf, read_only: bool) -> linuxrbd.RBDVolumeIOWrapper:
    image = volume.image
    user = volume.user or None
    try:
        client = linuxrbd.RBDClient(
            user, image.pool, conffile=conf.path, rbd_cluster_name=volume.cluster
        )
        opened = linuxrbd.RBDVolume(
            client, image.name, snapshot=image.snapshot or None, read_only=read_only
        )
    except BaseException:
        conf.remove()
        raise
    metadata = linuxrbd.RBDImageMetadata(opened, image.pool, user, conf.path)
    handle = linuxrbd.RBDVolumeIOWrapper(metadata)
    handle.when_closed(conf.remove)
    return handle
