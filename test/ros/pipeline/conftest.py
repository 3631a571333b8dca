"""Fixtures: the surroundings of the pipeline and its trackers."""

import pytest


@pytest.fixture
def world():
    from pipeline_world import World

    return World()


@pytest.fixture
def trackers():
    from instructsam_ros.pipeline.tracker_pool import TrackerPool

    return TrackerPool()
