"""Consistency of the repository: facts that several files state, the layout, and the documentation."""

import argparse
import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path
from xml.etree import ElementTree

import pytest
import requirements
import ros_source

from instructsam.core import cli
from instructsam.core.commands.parser import CommandParser
from instructsam.core.doctor.computer import PACKAGES as PACKAGES_OF_DOCTOR

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = importlib.metadata.metadata('instructsam-ros')
PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()
DEPENDS = {element.text for element in PACKAGE if element.tag.endswith('depend')}
CMAKE = (ROOT / 'CMakeLists.txt').read_text()
INTERFACES = ('msg', 'srv', 'action')

PACKAGES = ('core', 'train', 'instructsam_ros')
GENERATED = [ROOT / 'instructsam_ros' / kind for kind in INTERFACES]
MODULES = [path for name in PACKAGES for path in (ROOT / name).rglob('*.py') if not set(GENERATED) & set(path.parents)]
ROOMS = [path.parent for path in MODULES if path.name == '__init__.py' and path.parent.parent != ROOT]
MOST_MODULES = 12
UNDRAWN_ROOM = ('core', 'files')  # imported by nearly every room
DOCUMENTS = [
    *ROOT.glob('*.md'),
    *(ROOT / 'docs').rglob('*.md'),
    *(path for name in PACKAGES for path in (ROOT / name).rglob('*.md')),
]
CURRENT = [path for path in DOCUMENTS if path.name != 'CHANGELOG.md']  # documents that describe the present
ARCHITECTURE = (ROOT / 'docs/architecture.md').read_text()


def relative(path):
    return str(path.relative_to(ROOT))


def sentence_of(room):
    """Return the first paragraph of the docstring of a room's __init__.py in one line."""
    return ' '.join(ast.get_docstring(ast.parse((room / '__init__.py').read_text())).split('\n\n')[0].split())


# Facts that several files state


def test_version_and_licence():
    assert PACKAGE.findtext('version') == INSTALLED['Version']
    assert f'## [{INSTALLED["Version"]}]' in (ROOT / 'CHANGELOG.md').read_text()
    assert PACKAGE.findtext('license') == INSTALLED['License-Expression'] == 'Apache-2.0'


def test_description_and_name():
    assert PACKAGE.findtext('description') == INSTALLED['Summary']
    assert PACKAGE.findtext('name') == INSTALLED['Name'].replace('-', '_')


@pytest.mark.parametrize('kind', INTERFACES)
def test_every_interface_is_generated(kind):
    assert set(re.findall(rf'{kind}/\w+\.{kind}', CMAKE)) == {f'{kind}/{path.name}' for path in (ROOT / kind).iterdir()}


def test_package_xml_names_every_ros_package_that_is_imported():
    sources = [*MODULES, *(ROOT / 'launch').iterdir()]
    pattern = re.compile(r'^\s*(?:from|import) (rcl\w+|launch\w*|\w+_msgs)\b', re.MULTILINE)
    imported = {name for path in sources if path.is_file() for name in pattern.findall(path.read_text())}
    assert imported <= DEPENDS


def test_package_xml_leaves_the_deep_learning_runtime_to_the_user():
    """A pip torch that rosdep installs would replace NVIDIA's wheel on a Jetson."""
    assert not [name for name in DEPENDS if 'torch' in name or 'transformers' in name]


def test_colcon_tests_every_suite_of_the_core_and_the_node():
    (suites,) = re.findall(r'foreach\(suite (.*?)\)', CMAKE, re.DOTALL)
    expected = {'core'}
    for path in (ROOT / 'test/ros').iterdir():
        if path.name.startswith('test_') or list(path.glob('test_*.py')):
            expected.add(f'ros/{path.name}')
    assert set(suites.split()) == expected


def test_doctor_checks_what_is_installed():
    assert sorted(PACKAGES_OF_DOCTOR.values()) == requirements.requirements(ros_source.NONE)


def test_the_set_up_of_a_workspace_needs_a_sourced_ros():
    environment = {name: value for name, value in os.environ.items() if name != 'AMENT_PREFIX_PATH'}
    command = [ROOT / 'scripts/setup', '--ros-workspace']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count('\n')) == (2, 1)
    assert 'no ROS is sourced' in done.stderr


# Layout


@pytest.mark.parametrize(
    'script',
    [*(f'scripts/{name}' for name in ('demo', 'docs', 'fuzz', 'setup', 'source_links', 'test', 'types')), '.ci/run'],
)
def test_shell_scripts(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(['bash', '-n', ROOT / script], check=True)


@pytest.mark.parametrize('script', sorted((ROOT / 'scripts/ros').iterdir()), ids=lambda script: script.name)
def test_ros_executables(script):
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith('#!/usr/bin/env python3\n')
    assert f'scripts/ros/{script.name}' in CMAKE


def test_there_is_no_init_file_where_it_would_shadow():
    """Instructsam is a namespace package, and a package `test` would shadow the standard library's."""
    assert not (ROOT / 'instructsam').exists()
    assert not list((ROOT / 'test').rglob('__init__.py'))


@pytest.mark.parametrize('room', ROOMS, ids=relative)
def test_a_room_opens_with_one_sentence_and_has_a_dozen_modules(room):
    sentence = sentence_of(room)
    assert sentence.endswith('.')
    assert not re.search(r'[.?] [A-Z`]', sentence), sentence
    modules = [path for path in room.glob('*.py') if path.name != '__init__.py']
    assert len(modules) <= MOST_MODULES


def test_no_module_is_a_collection_of_utilities():
    assert not [path for path in MODULES if re.search(r'util|helper|misc', path.stem)]


def test_no_docstring_opens_with_a_relative_clause():
    folders = (*PACKAGES, 'test', 'scripts', 'examples')
    paths = {path for name in folders for path in (ROOT / name).rglob('*.py')} - {
        path for folder in GENERATED for path in folder.rglob('*')
    }
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = []
    for path in sorted(paths):
        for node in ast.walk(ast.parse(path.read_text())):
            docstring = isinstance(node, documented) and ast.get_docstring(node)
            if docstring and re.match(r'(What|How|Where|Whether|Which)\b', docstring):
                found.append(f'{relative(path)}:{getattr(node, "lineno", 1)}: {docstring.splitlines()[0]}')
    assert not found, '\n'.join(found)


# Documentation


def anchors(path):
    """Return the anchors of a Markdown file's headings, as GitHub forms them."""
    headings = re.findall(r'^#+ (.+)$', re.sub(r'```.*?```', '', path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('document', DOCUMENTS, ids=relative)
def test_links_exist(document):
    for link in re.findall(r'\]\(([^)\s]+)\)', document.read_text()):
        if re.match(r'\w+:', link):
            continue
        name, _, anchor = link.partition('#')
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def subcommands(parser):
    """Return the names of a parser's subcommands; empty if it has none."""
    actions = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name for action in actions for name in action.choices}


@pytest.mark.parametrize('document', CURRENT, ids=relative)
def test_commands_exist(document):
    pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
    for name, argument in re.findall(
        r'\b(?:instructsam|core\.cli) ([a-z]+)\b(?: ([a-z]+)(?![\w/.]))?', document.read_text()
    ):
        assert name in cli.COMMANDS, name
        parser = CommandParser(prog='instructsam')
        importlib.import_module(cli.COMMANDS[name][0]).add_arguments(parser)
        names = subcommands(parser)
        assert not (argument and names) or argument in names, f'instructsam {name} {argument}'


@pytest.mark.parametrize('document', CURRENT, ids=relative)
def test_files_named_in_a_document_exist(document):
    pattern = re.compile(r'(?<![\w/)])((?:core|train|instructsam_ros|scripts|test|examples|docs|config)/[\w/.-]+\.\w+)')
    missing = [name for name in pattern.findall(document.read_text()) if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize('room', ROOMS, ids=relative)
def test_the_architecture_describes_a_room_as_its_docstring_does(room):
    assert f'| `{relative(room)}` | {sentence_of(room)} |' in ARCHITECTURE


def test_the_diagrams_show_the_imports():
    """Every import between two rooms is an arrow, and every arrow is an import."""
    drawn = {
        (importing, imported)
        for diagram in re.findall(r'```mermaid\n(.*?)```', ARCHITECTURE, re.DOTALL)
        for importing, imported in re.findall(r'(\S+) --> (\S+)', diagram)
    }
    assert imports_between_rooms() == drawn


def test_rooms_do_not_import_in_a_circle():
    graph = {}
    for importing, imported in imports_between_rooms():
        graph.setdefault(importing, set()).add(imported)
    TopologicalSorter(graph).prepare()  # raises CycleError


def imports_between_rooms():
    """Return the pairs (importing, imported) of the nodes in the diagrams, without other root modules and UNDRAWN_ROOM.

    Imports for type checking only are left out as well.
    """
    names = {'core': 'instructsam.core', 'train': 'instructsam.train', 'instructsam_ros': 'instructsam_ros'}
    nodes = {}  # module -> node of a diagram, where rooms within a room count as one with it
    for path in MODULES:
        parts = path.relative_to(ROOT).with_suffix('').parts
        module = '.'.join((names[parts[0]], *parts[1:])).removesuffix('.__init__')
        if (len(parts) > 2 and parts[:2] != UNDRAWN_ROOM) or path.stem in ('client', 'engine'):
            nodes[module] = '/'.join(parts[:2])
    pairs = set()
    for path in MODULES:
        parts = path.relative_to(ROOT).with_suffix('').parts
        importing = '/'.join(parts[:2])
        if importing not in nodes.values():
            continue
        tree = ast.parse(path.read_text())
        conditions = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        for_types = {child for node in conditions if 'TYPE_CHECKING' in ast.dump(node.test) for child in ast.walk(node)}
        for node in set(ast.walk(tree)) - for_types:
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported = [node.module, *(f'{node.module}.{alias.name}' for alias in node.names)]
            pairs |= {(importing, nodes[name]) for name in imported if name in nodes}
    return {(importing, imported) for importing, imported in pairs if importing != imported}
