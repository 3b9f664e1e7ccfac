# SPDX-License-Identifier: Apache-2.0
"""What the connectors share: the host as it is now, and the few ways to change it."""
