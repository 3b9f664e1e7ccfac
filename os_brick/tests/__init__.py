"""Tests of the library: ``unit`` anywhere, ``functional`` on a real kernel."""
