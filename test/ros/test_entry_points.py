"""Commands that end while they start, by Ctrl-C or by a limit of the system: without a traceback."""

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


def run(tmp_path, stub, redirection=''):
    """Run a command whose rclpy is `stub`; return the exit code, and stderr."""
    (tmp_path / 'rclpy.py').write_text(stub)
    env = os.environ | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
    code = 'from instructsam_ros.entry_points import perception_node; perception_node()'
    command = ['bash', '-c', f'exec "$@" {redirection}', 'bash', sys.executable, '-c', code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize('error', ["OSError(24, 'Too many open files')", "ImportError('failed to map segment')"])
def test_a_limit_of_the_system_is_one_line(tmp_path, error):
    code, err = run(tmp_path, f'raise {error}')
    assert code == 1
    assert err.count('\n') == 1
    assert 'INSTRUCTSAM_DEBUG=1 shows where' in err


def test_without_standard_streams(tmp_path):
    assert run(tmp_path, 'import sys; sys.stdout.flush(); sys.exit(7)', '>&- <&-') == (7, '')
