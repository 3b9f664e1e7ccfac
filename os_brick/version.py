# SPDX-License-Identifier: Apache-2.0
"""The version of the installed distribution, looked up when first asked for."""

PACKAGE = "os-brick"


class VersionInfo:
    """Version of an installed distribution, with the methods callers know from pbr's class."""

    def __init__(self, package: str) -> None:
        self.package = package

    def version_string(self) -> str:
        """Version such as ``"6.10.0"``; ``"0.0.0"`` when run from a tree that is not installed."""
        # Imported here: the module costs more to load than most of this library.
        from importlib import metadata

        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return "0.0.0"

    def release_string(self) -> str:
        """The same as :meth:`version_string`: there is one way of writing it."""
        return self.version_string()

    def __str__(self) -> str:
        return self.version_string()

    def __repr__(self) -> str:
        return f"VersionInfo({self.package}:{self.version_string()})"


version_info = VersionInfo(PACKAGE)


def __getattr__(name: str) -> str:
    if name == "__version__":
        return version_info.version_string()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
