#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packaging entry point: everything is declared in setup.cfg."""

import setuptools

setuptools.setup()
