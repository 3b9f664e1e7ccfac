# SPDX-License-Identifier: Apache-2.0
"""What all unit tests may use."""

from hypothesis import settings

from os_brick.testing.pytest_plugin import fake_host as fake_host

# No test asserts a time: a busy machine is no failure.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
