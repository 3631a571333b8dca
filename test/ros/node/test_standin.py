"""The stand-in node of the tests leaves no process behind."""

import os
import subprocess
import sys

import psutil
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from robot import PATIENCE_S, STANDIN


def test_it_ends_with_tests_that_are_killed(domain_id):
    script = f"""
import os, subprocess, sys, time
env = os.environ | {{'STANDIN_PARENT': str(os.getpid())}}
print(subprocess.Popen([sys.executable, {str(STANDIN)!r}], stdout=sys.stderr, env=env).pid, flush=True)
time.sleep(600)
"""
    env = os.environ | {'ROS_DOMAIN_ID': str(domain_id)}
    with subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, text=True, env=env) as tests:
        node = psutil.Process(int(tests.stdout.readline()))
        tests.kill()
    node.wait(PATIENCE_S)
