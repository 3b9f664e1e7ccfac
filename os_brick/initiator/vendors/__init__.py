# SPDX-License-Identifier: Apache-2.0
"""What storage vendors' own software speaks: gateways, local services and control planes.

Clients and values of one vendor each, and what they share. Nothing here is loaded before a
connector of that vendor is.
"""
