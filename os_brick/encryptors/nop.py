# SPDX-License-Identifier: Apache-2.0
"""Volumes that are encrypted elsewhere, or not at all."""

from __future__ import annotations

from typing import Any

from os_brick.encryptors import base


class NoOpEncryptor(base.VolumeEncryptor):
    """Does nothing: the volume is used as it is attached."""

    def attach_volume(self, context: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def detach_volume(self, **kwargs: Any) -> None:
        """Do nothing."""

    def extend_volume(self, context: Any, **kwargs: Any) -> None:
        """Do nothing."""
