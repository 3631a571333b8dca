"""Ctrl-C while a command imports its modules: the process ends without a traceback."""

import os
import subprocess
import sys

import pytest

pytest.importorskip('instructsam_ros.msg', reason='needs ROS 2 or its wheels')

INTERRUPTED_IMPORT = """
import os, signal, time

os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""


@pytest.mark.parametrize('command', ['perception_node', 'replay', 'simulated_camera'])
def test_ctrl_c_during_the_imports(tmp_path, command):
    (tmp_path / 'rclpy.py').write_text(INTERRUPTED_IMPORT)
    env = os.environ | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
    code = f'from instructsam_ros.entry_points import {command}; {command}()'
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, '', '')
