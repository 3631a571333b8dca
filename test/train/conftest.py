"""Fixtures of the training tests."""
import pytest


@pytest.fixture(scope='session')
def opengl():
    """For tests that draw: skips them, with the reason, where there is no off-screen OpenGL."""
    from instructsam.train.tabletop import scene

    try:
        scene._renderer(224, 224)
    except RuntimeError as error:
        pytest.skip(f'no off-screen OpenGL here: {error}')
