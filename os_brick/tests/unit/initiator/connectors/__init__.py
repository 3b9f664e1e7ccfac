# SPDX-License-Identifier: Apache-2.0
"""Tests of the connectors, driven by their public interface on a fake host."""
