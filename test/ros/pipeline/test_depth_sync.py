"""Depth and camera info for an image: equal stamps or within the tolerance, never a guess."""

import threading
from time import sleep

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image

from instructsam_ros.conversions.stamps import nanoseconds
from instructsam_ros.pipeline.depth_sync import KEPT_DEPTH_IMAGES, DepthBuffer, NoDepthError


def message(milliseconds, name='depth', focal_px=500.0):
    if name == 'depth':
        found = Image()
    else:
        found = CameraInfo(width=64, height=48, k=[focal_px, 0.0, 32.0, 0.0, focal_px, 24.0, 0.0, 0.0, 1.0])
    found.header.stamp = time(milliseconds)
    return found


def time(milliseconds):
    return Time(sec=milliseconds // 1000, nanosec=milliseconds % 1000 * 1_000_000)


def ns(milliseconds):
    return milliseconds * 1_000_000


def filled(*stamps, infos=(100,), images=(), **kwargs):
    depths = DepthBuffer(**kwargs)
    for stamp in images:
        depths.put_image(ns(stamp))
    for stamp in stamps:
        depths.put_depth(message(stamp))
    for stamp in infos:
        depths.put_info(message(stamp, 'info'))
    return depths


def names(found):
    stamps = (nanoseconds(each.header.stamp) // 1_000_000 for each in (found.depth, found.camera_info))
    return tuple(f'{name} {stamp}' for name, stamp in zip(('depth', 'info'), stamps, strict=True))


def test_equal_stamps():
    depths = filled(100, 133, 166, infos=(100, 133), images=(100, 133, 166))
    assert names(depths.find(time(133))) == ('depth 133', 'info 133')
    depths.put_info(message(200, 'info'))
    with pytest.raises(NoDepthError, match='camera info with the stamp of the image has not been received'):
        depths.find(time(166))


def test_a_camera_info_that_is_published_now_and_then():
    depths = filled(100, 133, 166, infos=(100,), images=(100, 133, 166))
    assert names(depths.find(time(166))) == ('depth 166', 'info 100')


def test_another_stamp_does_not_match_without_a_tolerance():
    with pytest.raises(NoDepthError, match=r'nearest is 0\.003 s off'):
        filled(100, 130, 166).find(time(133))


def test_the_nearest_within_the_tolerance():
    depths = filled(100, 130, 135, 200)
    assert names(depths.find(time(133), tolerance_s=0.02))[0] == 'depth 135'
    with pytest.raises(NoDepthError, match=r'0\.032 s off'):
        depths.find(time(167), tolerance_s=0.02)


def test_it_waits_for_depth_that_may_still_arrive():
    depths, found = filled(100), []
    finder = threading.Thread(target=lambda: found.extend(depths.find(time(133), timeout_s=30)))
    finder.start()
    depths.put_depth(message(133))
    finder.join(10)
    assert found
    assert found[0].header.stamp == time(133)


def test_it_does_not_wait_for_depth_that_has_been_skipped():
    depths = filled(100, 166)
    with pytest.raises(NoDepthError, match=r'0\.033 s off'):
        depths.find(time(133), timeout_s=1e6)


def test_it_stops_waiting_when_cancelled():
    with pytest.raises(NoDepthError):
        filled(100).find(time(133), timeout_s=1e6, cancelled=lambda: True)


def test_it_does_not_wait_if_no_depth_ever_arrived():
    with pytest.raises(NoDepthError, match='no depth image has been received'):
        filled().find(time(100), timeout_s=1e6)


def test_depth_without_camera_info():
    with pytest.raises(NoDepthError, match='no camera info'):
        filled(100, infos=()).find(time(100), timeout_s=0.01)


def test_memory_is_bounded():
    depths = filled(*range(1000, 2000, 10), size=5)
    with pytest.raises(NoDepthError):
        depths.find(time(1900))
    assert names(depths.find(time(1990)))[0] == 'depth 1990'
    assert depths.received == 100
    depths.clear()
    with pytest.raises(NoDepthError, match='no depth image has been received'):
        depths.find(time(1990))


def test_it_waits_in_a_new_round_as_in_the_first():
    """Later stamps of the round before say nothing about what follows."""
    depths, found = filled(*range(1000, 2000, 10)), []
    depths.put_image(ns(1990))
    again = depths.put_image(ns(60))
    depths.put_depth(message(50))
    finder = threading.Thread(
        target=lambda: found.append(depths.find(time(60), timeout_s=30, stamp_round=again)), daemon=True
    )
    finder.start()
    finder.join(0.2)
    depths.put_depth(message(60))
    finder.join(10)
    assert names(found[0])[0] == 'depth 60'


def test_an_image_of_the_round_before_keeps_its_depth():
    """A looped recording sends the same stamps again while the last images still wait for the model."""
    depths = DepthBuffer()
    depths.put_info(message(0, 'info'))
    waiting = []
    for number in range(2):
        for stamp in range(100, 2300, 200):
            waiting.append((depths.put_image(ns(stamp)), stamp, f'{stamp} of round {number}'))
            depth = message(stamp)
            depth.encoding = f'{stamp} of round {number}'
            depths.put_depth(depth)
    for stamp_round, stamp, name in waiting:
        assert depths.find(time(stamp), stamp_round=stamp_round).depth.encoding == name


def test_depth_of_another_round_does_not_match():
    depths = filled(100, 2000)
    depths.put_image(ns(2000))
    again = depths.put_image(ns(100))
    with pytest.raises(NoDepthError, match=r"stamps went back .* no depth image of the image's round"):
        depths.find(time(100), timeout_s=0.01, stamp_round=again)
    depths.put_depth(message(100))
    with pytest.raises(NoDepthError, match='nearest is'):  # the depth of its round will not come any more
        depths.find(time(1000), timeout_s=1e6, stamp_round=0)


def test_the_tolerance_is_named_only_where_it_helps():
    with pytest.raises(NoDepthError, match='depth_tolerance_s'):
        filled(100).find(time(133))
    with pytest.raises(NoDepthError) as caught:
        filled(100).find(time(5000))
    assert 'depth_tolerance_s' not in str(caught.value)


def test_a_stamp_of_zero_is_not_set_and_pairs_with_nothing():
    depths = filled(0, 5, infos=(0, 5))
    assert depths.received == 2
    with pytest.raises(NoDepthError, match='the stamp of the image is 0, which means that it is not set'):
        depths.find(time(0), tolerance_s=1.0)
    assert names(depths.find(time(4), tolerance_s=1.0)) == ('depth 5', 'info 5')
    with pytest.raises(NoDepthError, match='the stamps of the depth images are 0'):
        filled(0).find(time(1), tolerance_s=1.0)
    assert names(filled(5, infos=(0,)).find(time(5))) == ('depth 5', 'info 0')  # intrinsics need no stamp


def test_other_messages_do_not_shorten_the_wait():
    depths, found = filled(50), []
    finder = threading.Thread(target=lambda: found.extend(depths.find(time(100), timeout_s=10.0)))
    finder.start()
    for number in range(600):
        depths.put_info(message(number, 'info'))
        sleep(0.001)  # so that each message wakes the waiting thread
    depths.put_depth(message(100))
    finder.join(10)
    assert found
    assert found[0].header.stamp == time(100)


def zoomed(milliseconds):
    return message(milliseconds, 'info', focal_px=600.0)


def test_an_image_is_measured_with_its_own_camera_info():
    """A zoom or another mode changes the intrinsics: with those of another image, places would be wrong."""
    depths = filled(100, 133, 166, 200, infos=(100, 133), images=(100, 133, 166))
    with pytest.raises(NoDepthError, match='the camera info with the stamp of the image has not been received'):
        depths.find(time(166))
    depths.put_info(zoomed(200))
    assert depths.find(time(200)).camera_info.k[0] == 600.0
    assert depths.find(time(133)).camera_info.k[0] == 500.0
    with pytest.raises(NoDepthError, match='has not been received'):
        depths.find(time(166))


def see(depths, stamp, info=None):
    """Receive an image, its depth and `info`; return the focal length with which it is measured, or why it is not."""
    stamp_round = depths.put_image(ns(stamp))
    depths.put_depth(message(stamp))
    if info is not None:
        depths.put_info(info)
    try:
        return depths.find(time(stamp), stamp_round=stamp_round).camera_info.k[0]
    except NoDepthError as error:
        return str(error)


MISSING = 'the camera info with the stamp of the image has not been received'


def test_camera_infos_that_stop_serve_no_further_image():
    """The lens may have been zoomed since, however long ago that is."""
    depths = DepthBuffer()
    for stamp in range(100, 500, 100):
        assert see(depths, stamp, message(stamp, 'info')) == 500.0
    for stamp in range(500, 500 + 100 * 3 * KEPT_DEPTH_IMAGES, 100):
        assert MISSING in see(depths, stamp)
    assert see(depths, stamp + 1, zoomed(stamp + 1)) == 600.0
    assert MISSING in see(depths, 200)  # of a new round, in which no camera info has arrived
    depths.clear()
    assert see(depths, 300, message(7, 'info')) == 500.0


def test_a_new_round_may_have_camera_infos_of_another_kind():
    """A recording with a camera info for each image is followed by an older one with few."""
    depths = DepthBuffer()
    for stamp in range(9100, 9500, 100):
        assert see(depths, stamp, message(stamp, 'info')) == 500.0
    assert see(depths, 100, message(50, 'info')) == 500.0
    assert see(depths, 200) == 500.0


def test_images_of_a_second_camera_are_not_measured_with_the_infos_of_the_first():
    depths = DepthBuffer()
    for stamp in range(1000, 2000, 100):
        assert see(depths, stamp, message(stamp, 'info')) == 500.0
        reason = see(depths, stamp + 50)
    assert MISSING in reason


@pytest.mark.parametrize('period', [10, 30])
def test_slow_camera_infos_with_stamps_of_images(period):
    depths = DepthBuffer()
    for number in range(100):
        stamp = 1000 + 33 * number
        assert see(depths, stamp, message(stamp, 'info') if number % period == 0 else None) == 500.0


def test_camera_infos_with_the_stamps_of_the_depth_images():
    depths = DepthBuffer()
    for stamp in (100, 200, 300, 400):
        depths.put_image(ns(stamp))
        depths.put_depth(message(stamp + 5))
        if stamp < 400:
            depths.put_info(message(stamp + 5, 'info'))
    assert names(depths.find(time(300), 0.01)) == ('depth 305', 'info 305')
    with pytest.raises(NoDepthError, match=MISSING):
        depths.find(time(400), 0.01)


def test_it_waits_for_the_camera_info_of_the_image():
    """The info of the first image in another mode may arrive after the image and its depth."""
    depths, found = filled(100, 133, infos=(100,)), []
    depths.put_image(ns(100))
    depths.put_image(ns(133))
    depths.put_info(message(133, 'info'))
    depths.put_image(ns(166))
    depths.put_depth(message(166))
    assert not depths.is_decided(ns(166), 0, 0)
    finder = threading.Thread(target=lambda: found.extend(depths.find(time(166), timeout_s=30)))
    finder.start()
    depths.put_info(zoomed(166))
    finder.join(30)
    assert found[1].k[0] == 600.0
    depths.put_image(ns(200))
    depths.put_depth(message(200))
    depths.put_info(zoomed(233))
    assert depths.is_decided(ns(200), 0, 0)  # its own was lost
    with pytest.raises(NoDepthError, match=MISSING):
        depths.find(time(200), timeout_s=1e6)


def test_camera_infos_without_the_stamps_of_images_serve_until_they_change():
    depths = filled(100, 133, infos=(0, 7))
    assert depths.find(time(133)).camera_info.k[0] == 500.0
    depths.put_info(zoomed(0))
    with pytest.raises(NoDepthError, match='the camera infos change, and their stamps are not those of the images'):
        depths.find(time(133))
    for _ in range(KEPT_DEPTH_IMAGES):
        depths.put_info(zoomed(0))
    assert depths.find(time(133)).camera_info.k[0] == 600.0


def test_a_camera_info_of_another_round_does_not_match():
    """A simulation that is reset with another camera sends the same stamps again."""
    depths = DepthBuffer()
    for stamp in range(100, 500, 33):
        depths.put_image(ns(stamp))
        depths.put_depth(message(stamp))
        depths.put_info(message(stamp, 'info'))
    again = depths.put_image(ns(100))
    depths.put_depth(message(100))
    assert not depths.is_decided(ns(100), 0, again)
    with pytest.raises(NoDepthError, match='has not been received'):
        depths.find(time(100), stamp_round=again)
    depths.put_info(zoomed(100))
    assert depths.find(time(100), stamp_round=again).camera_info.k[0] == 600.0


@pytest.mark.parametrize('back_ms', [5, 500, 5000])
def test_a_clock_that_is_set_back(back_ms):
    """Depth from before the step does not match, however small the step is."""
    depths = DepthBuffer()
    for stamp in range(9000, 10_000, 33):
        depths.put_image(ns(stamp))
        depths.put_depth(message(stamp))
        depths.put_info(message(stamp, 'info'))
    stamp -= back_ms
    again = depths.put_image(ns(stamp))
    for tolerance_s in (0.0, 0.02):
        with pytest.raises(NoDepthError, match='the stamps went back'):
            depths.find(time(stamp), tolerance_s, stamp_round=again)
    depths.put_depth(message(stamp))
    depths.put_info(message(stamp, 'info'))
    assert names(depths.find(time(stamp), 0.02, stamp_round=again)) == (f'depth {stamp}', f'info {stamp}')


@pytest.mark.parametrize('late_ms', [5, 20, 43, 80])
def test_depth_is_of_the_other_of_two_cameras(late_ms):
    """The images of a second camera have the stamps of the first, however late they arrive."""
    depths, arrivals = DepthBuffer(), []
    for stamp in range(1000, 3000, 33):
        first, second = message(stamp), message(stamp)
        second.width = 7
        arrivals += [(stamp, first, stamp), (stamp + late_ms, second, stamp), (stamp + 50, None, stamp)]
    for _, image, stamp in sorted(arrivals, key=lambda each: each[0]):
        if image is None:
            depths.put_depth(message(stamp))
            depths.put_info(message(stamp, 'info'))
        else:
            stamp_round = depths.put_image(ns(stamp), image)
    for each_round in range(stamp_round + 1):
        with pytest.raises(NoDepthError):
            depths.find(time(stamp), stamp_round=each_round)


@pytest.mark.parametrize('topic', ['images', 'depth images', 'camera infos'])
def test_two_messages_with_one_stamp(topic):
    """Two cameras, two drivers or a slow simulated clock; a message sent twice is no such case."""

    def put(depths, stamp, *, is_other=False):
        """Receive a message of each topic; `is_other`: that of `topic` differs."""
        depth, info, image = message(stamp), message(stamp, 'info'), message(stamp)
        if is_other:
            changed = {'images': image, 'depth images': depth, 'camera infos': info}[topic]
            changed.width = 7
        depths.put_image(ns(stamp), image), depths.put_depth(depth), depths.put_info(info)

    depths = DepthBuffer()
    put(depths, 100), put(depths, 133), put(depths, 133)
    assert depths.find(time(133))
    put(depths, 133, is_other=True)
    with pytest.raises(NoDepthError, match=f'several {topic} have the stamp of the image'):
        depths.find(time(133))
    put(depths, 166)  # whose other message may be late
    with pytest.raises(NoDepthError, match=f'several {topic} have .* shortly before or after it, and differ'):
        depths.find(time(166))
    for stamp in range(200, 200 + KEPT_DEPTH_IMAGES):
        put(depths, stamp)
    assert depths.find(time(stamp))
    put(depths, stamp, is_other=True)
    depths.clear()
    put(depths, stamp)
    assert depths.find(time(stamp))
