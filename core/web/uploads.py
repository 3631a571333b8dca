"""The folder of uploaded images, which exists as long as the page."""

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def private_folder() -> Generator[str, None, None]:
    """Keep uploads in a folder of their own, which is removed at the end, and switch Gradio's reports off.

    Gradio reads both from the environment, the first when a component is made: enter this before the page is built.
    """
    with tempfile.TemporaryDirectory(prefix='instructsam_web_', ignore_cleanup_errors=True) as folder:
        changed = {'GRADIO_TEMP_DIR': folder, 'GRADIO_ANALYTICS_ENABLED': 'False'}
        before = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            yield folder
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
