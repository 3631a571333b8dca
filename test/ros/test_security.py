"""The SROS2 policy against the graph of a running node, and the sockets of a process that is limited to the machine."""

import os
import re
import socket
from contextlib import nullcontext
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from rclpy.action import get_action_client_names_and_types_by_node, get_action_server_names_and_types_by_node

from instructsam_ros import dds
from instructsam_ros.client import Perception

POLICY = Path(__file__).parents[2] / 'config' / 'sros2_policy.xml'
WithComments = partial(ElementTree.TreeBuilder, insert_comments=True)
OPTIONAL = {
    '/image/compressed', '/depth/compressed', '/depth/compressedDepth', '/tf', '/tf_static', '/clock',
    '/perception/detections_2d', '/perception/detections_3d',
}  # fmt: skip
"""Topics that the node has with certain parameters only."""


def policy(enclave):
    """Return {(attribute, value's kind): absolute names} of an enclave, resolved as sros2's permissions.xsl does."""
    root = ElementTree.fromstring(POLICY.read_text(), ElementTree.XMLParser(target=WithComments()))
    assert [each.tag for each in root.find('enclaves')] == ['enclave'] * 3  # sros2 takes comments for enclaves
    assert root.get('version') == '0.2.0'
    (profile,) = root.findall(f"enclaves/enclave[@path='{enclave}']/profiles/profile")
    namespace = profile.get('ns').rstrip('/') + '/'
    allowed = {}
    for group in profile:
        ((verb, qualifier),) = group.items()
        assert qualifier == 'ALLOW'
        for expression in group:
            name = expression.text
            if name.startswith('~'):
                name = namespace + profile.get('node') + name[1:]
            elif not name.startswith('/'):
                name = namespace + name
            allowed.setdefault(verb, set()).add(name)
    return allowed


def graph(node, name):
    """Return the names of everything that the node `name` has, as `policy` does."""

    def names(found):
        return {each for each, _ in found if '/_action/' not in each}

    return {
        'subscribe': names(node.get_subscriber_names_and_types_by_node(name, '/')),
        'publish': names(node.get_publisher_names_and_types_by_node(name, '/')),
        'reply': names(node.get_service_names_and_types_by_node(name, '/')),
        'request': names(node.get_client_names_and_types_by_node(name, '/')),
        'execute': names(get_action_server_names_and_types_by_node(node, name, '/')),
        'call': names(get_action_client_names_and_types_by_node(node, name, '/')),
    }


@pytest.fixture(scope='module')
def robot(lasting_robot):
    lasting_robot.start_active('instruction:=the mugs')
    return lasting_robot


def complete_graph(robot, name, allowed, optional=frozenset()):
    """Wait until everything that is allowed and not optional has been discovered; return the graph."""

    def is_complete():
        if name not in robot.node.get_node_names():
            return False
        found = graph(robot.node, name)
        return all(
            any(fnmatchcase(each, expression) for each in found[verb])
            for verb, expressions in allowed.items()
            for expression in expressions - optional
        )

    if not robot.wait_or_time_out(is_complete, 20):
        found = graph(robot.node, name)
        missing = {verb: names - found[verb] - optional for verb, names in allowed.items()}
        pytest.fail(f'the policy allows what {name} does not have: {missing}')
    return graph(robot.node, name)


def test_policy_allows_what_the_node_has_and_nothing_else(robot):
    allowed = policy('/perception')
    found = complete_graph(robot, 'perception', allowed, OPTIONAL)
    assert {
        verb: names - allowed.get(verb, set()) for verb, names in found.items() if names - allowed.get(verb, set())
    } == {}


def test_policy_of_the_client_allows_what_it_has(robot, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    allowed = policy('/perception_client')
    with Perception() as perception:
        name = perception._node.get_name()
        only_during_watch = {'/perception/instances', '/perception/tracked/instances'}
        found = complete_graph(robot, name, allowed, only_during_watch | {'/clock'})
    for verb, names in found.items():
        unknown = [each for each in names if not any(fnmatchcase(each, known) for known in allowed.get(verb, ()))]
        assert not unknown, verb


def test_operator_may_do_what_the_node_offers():
    node, operator = policy('/perception'), policy('/perception_operator')
    assert operator['request'] == node['reply']
    assert operator['call'] == node['execute']
    assert operator['subscribe'] - {'/clock'} == node['publish']


def sockets(pid):
    """Return the addresses to which the UDP and TCP sockets of a process are bound."""
    links = [os.readlink(path) for path in Path(f'/proc/{pid}/fd').iterdir() if path.is_symlink()]
    own = {link[len('socket:[') : -1] for link in links if link.startswith('socket:[')}
    found = []
    for protocol in ('udp', 'udp6', 'tcp', 'tcp6'):
        table = Path(f'/proc/{pid}/net/{protocol}')
        rows = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
        found += [(protocol, row[1].split(':')[0]) for row in rows if row[9] in own]
    return found


LOOPBACK = ('udp', f'{int.from_bytes(socket.inet_aton("127.0.0.1"), "little"):08X}')


@pytest.mark.skipif(not Path('/proc/net/udp').exists(), reason='reads /proc')
def test_a_node_that_is_limited_to_the_machine_listens_on_the_loopback_only(robot):
    found = sockets(robot.nodes[0].process.pid)
    assert found
    assert set(found) == {LOOPBACK}


@pytest.mark.parametrize(
    ('environment', 'images', 'profile', 'discovery'),
    [
        ({}, False, None, None),
        ({}, True, 'fastdds_images.xml', None),
        ({dds.RANGE_VARIABLE: 'LOCALHOST'}, False, 'fastdds_loopback.xml', 'SYSTEM_DEFAULT'),
        ({dds.RANGE_VARIABLE: 'LOCALHOST'}, True, 'fastdds_loopback.xml', 'SYSTEM_DEFAULT'),
        ({dds.RANGE_VARIABLE: 'SUBNET'}, True, 'fastdds_images.xml', 'SUBNET'),
        ({dds.RANGE_VARIABLE: 'LOCALHOST', 'ROS_STATIC_PEERS': 'arm.local'}, False, None, 'LOCALHOST'),
        ({dds.RANGE_VARIABLE: 'LOCALHOST', 'FASTDDS_DEFAULT_PROFILES_FILE': '/mine.xml'}, True, None, 'LOCALHOST'),
    ],
)
def test_selected_profile(monkeypatch, environment, images, profile, discovery):
    for variable in (*dds.PROFILE_VARIABLES, dds.RANGE_VARIABLE, 'ROS_STATIC_PEERS'):
        monkeypatch.setenv(variable, '')  # so that it is restored
        monkeypatch.delenv(variable)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(dds, '_uses_fast_dds', lambda: True)
    dds.configure_dds(publishes_images=images)
    assert os.environ.get(dds.RANGE_VARIABLE) == discovery
    for variable in dds.PROFILE_VARIABLES:
        selected = os.environ.get(variable)
        assert selected == environment.get(variable) or Path(selected).name == profile
        assert selected is None or selected in environment.values() or Path(selected).is_file()


def test_another_middleware_keeps_its_discovery_range(monkeypatch):
    for variable in dds.PROFILE_VARIABLES:
        monkeypatch.setenv(variable, '')
    monkeypatch.setenv(dds.RANGE_VARIABLE, 'LOCALHOST')
    monkeypatch.setattr(dds, '_uses_fast_dds', lambda: False)
    dds.configure_dds()
    assert os.environ[dds.RANGE_VARIABLE] == 'LOCALHOST'


@pytest.mark.parametrize(
    ('free_mb', 'images', 'middleware', 'is_enough'),
    [(0.9, False, '', False), (2, False, '', True), (2, True, '', False), (2, True, 'rmw_cyclonedds_cpp', True)],
)
def test_full_shared_memory_is_an_error(monkeypatch, free_mb, images, middleware, is_enough):
    for variable in (*dds.PROFILE_VARIABLES, dds.RANGE_VARIABLE):
        monkeypatch.setenv(variable, '')
    monkeypatch.setenv('RMW_IMPLEMENTATION', middleware)
    monkeypatch.setattr(os, 'statvfs', lambda path: SimpleNamespace(f_bavail=free_mb * 1e6 / 4096, f_frsize=4096))
    said = f'/dev/shm has {free_mb:.1f} MB left'
    with nullcontext() if is_enough else pytest.raises(dds.RosEnvironmentError, match=said):
        dds.configure_dds(publishes_images=images)


def test_the_profiles_fit_into_the_shared_memory_that_is_demanded():
    for profile in ('fastdds_images.xml', 'fastdds_loopback.xml'):
        size = re.search(r'<segment_size>(\d+)<', (dds.PROFILES / profile).read_text())
        assert int(size[1]) < dds.PROFILE_SEGMENT_MB * 1e6
