# SPDX-License-Identifier: Apache-2.0
"""How a program that was run by a service's execute function has ended."""

from __future__ import annotations

from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.programs import Programs
from os_brick.testing import FakeHost


def as_user(*words: str, **keywords: Any) -> Any:
    """Run a program by oslo.concurrency's own function, not as root."""
    keywords.update(run_as_root=False, root_helper=None)
    return processutils.execute(*words, **keywords)


@pytest.fixture
def call(fake_host: FakeHost) -> Call:
    return Call("test", fake_host.host.clock, 60)


def test_what_was_stopped_at_its_limit_is_told_from_what_could_not_be_started(call: Call) -> None:
    programs = Programs(as_user, None)
    stopped = programs.run(call, "sleep", "60", limit_s=0.1)
    assert stopped.code is None
    assert isinstance(stopped.error, exception.ExecutionTimeout)
    missing = programs.run(call, "os-brick-no-such-program", limit_s=10)
    assert missing.code is None
    assert missing.error is not None
    assert not isinstance(missing.error, exception.ExecutionTimeout)
