"""The container files, as far as that can be said without building them."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from instructsam.core import cli
from instructsam.core.commands.parser import CommandParser

ROOT = Path(__file__).resolve().parents[2]
CMAKE = (ROOT / 'CMakeLists.txt').read_text()
DOCKERFILES = sorted((ROOT / 'docker').glob('Dockerfile*'))


@pytest.mark.parametrize('dockerfile', DOCKERFILES, ids=lambda path: path.name)
def test_lint(dockerfile):
    hadolint = shutil.which('hadolint', path=str(Path(sys.executable).parent)) or shutil.which('hadolint')
    if hadolint is None:
        pytest.skip('needs hadolint')
    done = subprocess.run([hadolint, dockerfile], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('dockerfile', DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_exists_and_is_set_up_as_elsewhere(dockerfile):
    text = dockerfile.read_text()
    copied = re.findall(r'^COPY (\S+) ', text, re.MULTILINE)
    assert '.' in copied
    assert all((ROOT / path).exists() for path in copied)
    assert 'scripts/setup --ros-workspace' in text
    assert 'Not built by the tests' in text
    assert (ROOT / 'docker/entrypoint').stat().st_mode & 0o111


def test_the_compose_files():
    yaml = pytest.importorskip('yaml')
    documents = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / 'docker').glob('compose*.yml'))]
    plain = next(document for document in documents if 'x-ros' in document)
    assert set(plain['services']) == {'perception', 'replay', 'web'}
    assert all(set(document['services']) <= set(plain['services']) for document in documents)
    (recording,) = re.findall(r'RECORDING:-/ws/src/instructsam_ros/([^}]+)', str(plain['services']['replay']))
    assert (ROOT / recording).is_dir()
    launch = (ROOT / 'launch/perception.launch.py').read_text()
    for argument in plain['services']['perception']['command'][4:]:
        assert f"'{argument.partition(':=')[0]}'" in launch
    for service in plain['services'].values():
        assert service['network_mode'] == 'host'
        assert 'ports' not in service  # which a host's network ignores
        assert set(service.get('depends_on', [])) <= set(plain['services'])
        assert (ROOT / 'docker' / service['build']['context']).resolve() == ROOT
        (dockerfile,) = re.findall(r':-(\S+)}', service['build']['dockerfile'])
        assert ROOT / dockerfile in DOCKERFILES


def test_the_page_of_the_compose_file_is_for_this_machine_only():
    yaml = pytest.importorskip('yaml')
    services = yaml.safe_load((ROOT / 'docker/compose.yml').read_text())['services']
    program, name, *arguments = services['web']['command']
    assert (program, name) == ('instructsam', 'web')
    parser = CommandParser(prog='instructsam web')
    importlib.import_module(cli.COMMANDS[name][0]).add_arguments(parser)
    given = [re.sub(r'\$\{\w+:-(.*)}', r'\1', argument) for argument in arguments]  # as without variables
    parsed = parser.parse_args(given)
    assert (parsed.node, parsed.host, parsed.port) == ('/perception', '127.0.0.1', 7860)


@pytest.mark.parametrize('dockerfile', DOCKERFILES, ids=lambda path: path.name)
def test_the_images_have_what_the_page_and_vision_msgs_need(dockerfile):
    (packages,) = re.findall(r'^ARG PACKAGES="(.*)"$', dockerfile.read_text(), re.MULTILINE)
    (extra,) = re.findall(r'^web = \["(.*)"\]$', (ROOT / 'pyproject.toml').read_text(), re.MULTILINE)
    assert packages == extra
    assert re.search(r'ros-\w+-vision-msgs', dockerfile.read_text())


def test_nothing_that_an_image_needs_is_left_out():
    ignored = {line.strip('/') for line in (ROOT / '.dockerignore').read_text().splitlines()}
    installed = re.findall(r'^(?:install\(DIRECTORY |foreach\(package )([\w ]+)', CMAKE, re.MULTILINE)
    needed = {name for names in installed for name in names.split()} | {'scripts', 'docker', 'env-hooks', 'package.xml'}
    assert {'core', 'train', 'launch'} <= needed
    assert not ignored & needed
