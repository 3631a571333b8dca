"""Facts that several files of the repository state, and that have to agree."""

import importlib.metadata
import os
import re
import subprocess
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = importlib.metadata.metadata('instructsam-ros')
PACKAGE = xml.parse(ROOT / 'package.xml').getroot()
DEPENDS = {element.text for element in PACKAGE if element.tag.endswith('depend')}
CMAKE = (ROOT / 'CMakeLists.txt').read_text()


def test_version_and_licence():
    assert PACKAGE.findtext('version') == INSTALLED['Version']
    assert f'## [{INSTALLED["Version"]}]' in (ROOT / 'CHANGELOG.md').read_text()
    assert PACKAGE.findtext('license') == INSTALLED['License-Expression'] == 'Apache-2.0'


def test_description_and_name():
    assert PACKAGE.findtext('description') == INSTALLED['Summary']
    assert PACKAGE.findtext('name') == INSTALLED['Name'].replace('-', '_')


def test_every_message_is_generated():
    assert set(re.findall(r'msg/\w+\.msg', CMAKE)) == {f'msg/{path.name}' for path in (ROOT / 'msg').iterdir()}


def test_package_xml_names_every_ros_package_that_is_imported():
    sources = [*(ROOT / 'instructsam_ros').rglob('*.py'), *(ROOT / 'launch').iterdir()]
    pattern = re.compile(r'^\s*(?:from|import) (rcl\w+|launch\w*|\w+_msgs)\b', re.MULTILINE)
    imported = {name for path in sources for name in pattern.findall(path.read_text())}
    assert imported <= DEPENDS


def test_package_xml_leaves_the_deep_learning_runtime_to_the_user():
    """A pip torch that rosdep installs would replace NVIDIA's wheel on a Jetson."""
    assert not [name for name in DEPENDS if 'torch' in name or 'transformers' in name]


@pytest.mark.parametrize('script', ['scripts/demo', 'scripts/setup', 'scripts/test', 'scripts/types', '.ci/run'])
def test_shell_scripts(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(['bash', '-n', ROOT / script], check=True)


@pytest.mark.parametrize('script', sorted((ROOT / 'scripts/ros').iterdir()), ids=lambda script: script.name)
def test_ros_executables(script):
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith('#!/usr/bin/env python3\n')
    assert f'scripts/ros/{script.name}' in CMAKE


def test_there_is_no_init_file_where_it_would_shadow():
    """Instructsam is a namespace, and test/ would shadow the standard library's."""
    assert not (ROOT / 'instructsam').exists()
    assert not list((ROOT / 'test').rglob('__init__.py'))
