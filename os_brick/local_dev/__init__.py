# SPDX-License-Identifier: Apache-2.0
"""Volumes that this host makes on its own disks."""
