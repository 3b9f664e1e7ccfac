# SPDX-License-Identifier: Apache-2.0
"""What all unit tests may use."""

from os_brick.testing.pytest_plugin import fake_host as fake_host
