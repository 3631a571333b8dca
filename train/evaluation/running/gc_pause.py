"""Python's search for cycles, put off while millions of values that have none are read."""

import gc
from contextlib import contextmanager


@contextmanager
def no_collection():
    """To look for cycles among millions of values takes longer than to read them. Also as a decorator."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
