# SPDX-License-Identifier: Apache-2.0
"""Mounting shares of remote file systems."""
