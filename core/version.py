"""Version of the installed package."""

import importlib.metadata


def version() -> str:
    """Return the version of the installed package, or a note where it was not installed by pip."""
    try:
        return importlib.metadata.version('instructsam-ros')
    except importlib.metadata.PackageNotFoundError:  # a colcon workspace keeps no Python metadata
        return '(version unknown: not installed by pip)'
