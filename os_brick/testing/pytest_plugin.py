# SPDX-License-Identifier: Apache-2.0
"""The fixture ``fake_host`` for pytest: ``pytest_plugins = ["os_brick.testing.pytest_plugin"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from os_brick.testing.fake_host import FakeHost


@pytest.fixture
def fake_host() -> Iterator[FakeHost]:
    """A fresh :class:`~os_brick.testing.FakeHost`; mistakes against it fail the test at its end."""
    with FakeHost() as host:
        yield host
        host.check()
