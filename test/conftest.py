"""For every test."""
import signal

import pytest

# A shell that starts the tests in the background lets them ignore SIGINT, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Where several processes share the tests (--dist loadgroup), a file goes to one of them, and so do all builds."""
    for item in items:
        group = 'builds' if item.get_closest_marker('slow_build') else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
