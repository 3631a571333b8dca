"""`instructsam web --node`: a running node as the source of the page's answers, over real DDS."""

import threading
from contextlib import suppress

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from instructsam.core.errors import CancelledError, InstructSAMError
from instructsam.core.web.source import Question
from instructsam_ros.conversions.instances import image_msg
from instructsam_ros.pipeline.depth_sync import RECENT
from instructsam_ros.web.node_source import NodeSource


@pytest.fixture(scope='module')
def robot(lasting_robot):
    lasting_robot.start_active()
    return lasting_robot


def grey(number):
    """Return an image of another grey than those around it."""
    return np.full((48, 64, 3), number % 200, np.uint8)


@pytest.fixture
def source(robot, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    source = NodeSource('/perception')
    yield source
    source.close()


def never():
    return False


def wait_for_image(robot, source):
    """Wait until an image has reached the page."""
    for _ in range(1200):
        if source.newest_image() is not None:
            return
        robot.wait_or_time_out(lambda: False, 0.05)
    raise AssertionError('no image has arrived')


def test_the_camera_and_an_image_of_the_user(robot, source, monkeypatch):
    found, find = [], source._perception.find
    monkeypatch.setattr(source._perception, 'find', lambda *a, **k: found.append(find(*a, **k)) or found[-1])
    with robot.stream(grey, depth=np.full((48, 64), 1000, np.uint16)):
        wait_for_image(robot, source)
        answer = source.answer(Question('the mugs', None), never)
    assert answer.result.status == 'ok'
    assert (found[0].stamp_s - 1) % 200 == answer.image[0, 0, 0]  # the image that is shown is the one that was answered
    assert answer.scene is not None
    assert 'with waiting and transport' in answer.note

    image = np.full((30, 40, 3), 7, np.uint8)
    answer = source.answer(Question('the mugs', image, threshold=0.92), never)
    assert (answer.result.height, answer.result.width, len(answer.result.instances)) == (30, 40, 1)
    np.testing.assert_array_equal(answer.image, image)
    assert source.answer(Question('nothing', image), never).result.status == 'no_target'
    with pytest.raises(InstructSAMError, match='a reason'):
        source.answer(Question('bad a reason', image), never)


def test_an_image_that_the_node_no_longer_has_is_replaced_by_the_newest(robot, source, monkeypatch):
    with robot.stream(grey):
        wait_for_image(robot, source)
        first = source._images.newest()
        robot.wait(lambda: robot.frames > first.header.stamp.sec + 2 * RECENT)
        waiting, newest = [first], source._images.newest
        monkeypatch.setattr(source._images, 'newest', lambda: waiting.pop() if waiting else newest())
        answer = source.answer(Question('the mugs', None), never)
    assert not waiting
    assert answer.image[0, 0, 0] != (first.header.stamp.sec - 1) % 200


def test_a_camera_must_be_chosen_among_several(source, monkeypatch):
    images = {f'/{name}/image': Image(header=Header(frame_id=name)) for name in ('left', 'right')}
    monkeypatch.setattr(source._images, '_newest', images)
    with pytest.raises(InstructSAMError, match='of /left/image, /right/image: choose one with --camera'):
        source.answer(Question('the mugs', None), never)
    monkeypatch.setattr(source._images, '_camera', 'right')
    assert source._images.newest().header.frame_id == 'right'


def reconfigure(robot, transport):
    assert robot.change_state('deactivate')
    assert robot.change_state('cleanup')
    assert robot.set('image_transport', transport) == (True, '')
    assert robot.change_state('configure')
    assert robot.change_state('activate')


def test_the_images_are_those_that_the_node_reads_now(robot, source):
    with robot.stream(grey):
        wait_for_image(robot, source)
    reconfigure(robot, 'compressed')
    jpeg = cv2.imencode('.jpg', grey(9))[1].tobytes()
    try:
        for _ in range(300):
            robot.see_compressed(jpeg)
            with suppress(InstructSAMError):
                if isinstance(source._images.newest(), CompressedImage):
                    break
            robot.wait_or_time_out(lambda: False, 0.05)
        assert source._images.newest().format == 'jpeg'
        assert '/image' not in [each.topic_name for each in source._images._node.subscriptions]
    finally:
        reconfigure(robot, 'raw')


def test_an_answer_about_another_image_is_refused(robot, source, monkeypatch):
    asked = source._asked
    monkeypatch.setattr(
        source, '_asked', lambda question: (image_msg(question.image, Header(frame_id='left')), asked(question)[1])
    )
    with pytest.raises(InstructSAMError, match=r"frame 'instructsam_web'.* frame 'left'.*: give --camera"):
        source.answer(Question('the mugs', np.zeros((30, 40, 3), np.uint8)), never)


def test_a_question_can_be_cancelled(robot, source):
    is_cancelled = threading.Event()
    threading.Timer(0.3, is_cancelled.set).start()
    image = np.zeros((30, 40, 3), np.uint8)
    with pytest.raises(CancelledError):
        source.answer(Question('sleep 60', image), is_cancelled.is_set)
    assert source.answer(Question('the mugs', image), never).result.status == 'ok'  # the node is free again


def test_there_is_no_such_node(robot, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain_id))
    monkeypatch.setattr('instructsam_ros.web.node_source.PATIENCE_S', 0.1)
    with pytest.raises(InstructSAMError, match=r'there is no node /robot/eyes: start it'):
        NodeSource('robot/eyes')


def test_the_page_in_a_browser(robot, source):
    pytest.importorskip('gradio', reason='needs the extra web')
    from browser import chromium, tab

    from instructsam.core.web.page import Page
    from instructsam.core.web.server import listen, private_folder, serve

    with robot.stream(grey), private_folder(), listen('127.0.0.1', 0) as listener:
        wait_for_image(robot, source)
        with serve(Page(source, [], 64), listener) as url, chromium() as browser, tab(browser, url) as page:
            page.wait_for_function("document.querySelector('.is-camera img').naturalWidth === 64")
            page.fill('#instruction textarea', 'the mugs')
            page.click('#ask')
            page.wait_for_selector('#masks path')
            assert page.locator('#masks path').count() == 9
            page.get_by_label('own image').check()
            page.wait_for_selector('#image')
