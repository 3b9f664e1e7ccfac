# SPDX-License-Identifier: Apache-2.0
"""Tests of the test double itself: a host in a folder must behave as a host."""
