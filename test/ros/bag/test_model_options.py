"""The options of `instructsam bag annotate` about the model reach it."""

import argparse
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from rich.console import Console

import instructsam.core
from instructsam.core.commands.options import add_model_options
from instructsam_ros.bag import annotate


def test_every_option_of_the_model_reaches_it(monkeypatch):
    loaded = []

    def from_pretrained(model, **options):
        loaded.append((model, options))
        return SimpleNamespace(warning='')

    monkeypatch.setattr(
        instructsam.core, 'InstructSAM', SimpleNamespace(from_pretrained=from_pretrained), raising=False
    )
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    given = '--model m --revision r --mode reference --device cpu --dtype bfloat16 --compile inductor'
    annotate.load_engine(parser.parse_args(given.split()), Console())
    expected = {'revision': 'r', 'mode': 'reference', 'device': 'cpu', 'dtype': 'bfloat16', 'compile': 'inductor'}
    assert loaded == [('m', expected)]
