"""Results to messages and back: pycocotools reads the masks, and serialization keeps every byte."""

from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from instructsam.core.result import STEPS, Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros import msg
from instructsam_ros.conversions import images
from instructsam_ros.conversions import instances as messages
from instructsam_ros.conversions.depth import to_depth

HEADER = Header(frame_id='camera_color_optical_frame')
HEADER.stamp.sec, HEADER.stamp.nanosec = 1700000000, 123456789


def some_masks():
    """Return masks [5, 33, 47] bool: random, full, empty, first pixel only, last pixel only."""
    masks = np.zeros((5, 33, 47), bool)
    masks[0] = np.random.default_rng(0).random((33, 47)) < 0.3
    masks[1] = True
    masks[3, 0, 0] = True
    masks[4, -1, -1] = True
    return masks


def result_of(masks, **fields):
    instances = tuple(
        Instance(mask=Rle.encode(mask), score=1 - i / 8, phrase=f'mug {i}', slot=i) for i, mask in enumerate(masks)
    )
    height, width = masks.shape[1:]
    return Result('the mugs', 'answer', height, width, instances, **fields)


def serialized_and_back(message):
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize('mask', some_masks())
def test_masks_round_trip_and_are_coco_masks(mask):
    received = serialized_and_back(messages.rle_to_msg(Rle.encode(mask)))
    assert np.array_equal(messages.rle_from_msg(received).decode(), mask)

    size = [received.height, received.width]
    coco_rle = coco.frPyObjects({'size': size, 'counts': list(received.counts)}, *size)
    assert np.array_equal(coco.decode(coco_rle).astype(bool), mask)
    assert coco_rle == coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_coco_masks_can_be_sent():
    mask = some_masks()[0]
    sent = Rle.from_coco(coco.encode(np.asfortranarray(mask.astype(np.uint8))))
    assert np.array_equal(messages.rle_from_msg(serialized_and_back(messages.rle_to_msg(sent))).decode(), mask)


def test_counts_that_do_not_fill_the_image_are_refused():
    with pytest.raises(ValueError, match='add up to 7, expected 3 x 3 = 9'):
        messages.rle_from_msg(msg.Rle(height=3, width=3, counts=[4, 3]))


def test_result():
    masks = some_masks()
    result = result_of(masks, warning='only for tables', timings_ms={step: 1.5 + i for i, step in enumerate(STEPS)})
    sent = messages.to_msg(result, HEADER, ' the mugs ', 2**63)
    received = serialized_and_back(sent)
    assert received == sent
    assert received.header == HEADER
    assert (received.instruction, received.instruction_id) == (' the mugs ', 2**63)
    assert (received.status, received.message, received.answer) == (0, 'only for tables', 'answer')
    assert (received.height, received.width) == (33, 47)
    assert [getattr(received, f'{step}_ms') for step in STEPS] == [1.5, 2.5, 3.5, 4.5, 5.5]
    for instance, source, mask in zip(received.instances, result.instances, masks, strict=True):
        assert instance.track_id == msg.Instance.UNTRACKED
        assert (instance.phrase, instance.score) == (source.phrase, pytest.approx(source.score))
        assert not instance.roi.do_rectify
        x, y = instance.roi.x_offset, instance.roi.y_offset
        inside = mask[y : y + instance.roi.height, x : x + instance.roi.width]
        assert inside.sum() == mask.sum()
        if inside.size:  # tight: each side touches a foreground pixel
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_nothing_found_is_not_an_error():
    found_nothing = messages.to_msg(result_of(some_masks()[:0]), HEADER, 'the mugs', 3)
    assert found_nothing.status == msg.InstanceArray.STATUS_NO_TARGET
    assert (found_nothing.message, list(found_nothing.instances)) == ('', [])


@pytest.mark.parametrize(
    ('finish_reason', 'advice'),
    [
        ('time_budget', 'raise time_budget_s'),
        ('token_budget', 'raise max_new_tokens, or use other words if the model repeats itself'),
    ],
)
def test_an_answer_that_a_limit_ended_says_so(finish_reason, advice):
    says = f'the answer was ended by the {finish_reason.replace("_", " ")}{{}}: {advice}'
    cut = result_of(some_masks()[:0], finish_reason=finish_reason, warning='only for tables')
    message = messages.to_msg(cut, HEADER, 'the mugs', 3)
    assert message.status == msg.InstanceArray.STATUS_ERROR
    assert message.message == says.format(' before its first phrase was complete') + '; only for tables'
    one_phrase = messages.to_msg(replace(cut, phrases=('mug',), warning=''), HEADER, 'the mugs', 3)
    assert (one_phrase.status, one_phrase.message) == (msg.InstanceArray.STATUS_NO_TARGET, says.format(''))
    found = result_of(some_masks(), finish_reason=finish_reason, phrases=('mug',))
    message = messages.to_msg(found, HEADER, 'the mugs', 3)
    assert (message.status, message.message) == (msg.InstanceArray.STATUS_OK, says.format(''))


def test_error():
    received = serialized_and_back(messages.error_msg('no such thing', HEADER, 'the mugs \udc80', 4))
    assert received.status == msg.InstanceArray.STATUS_ERROR
    assert (received.message, received.instruction_id, received.header) == ('no such thing', 4, HEADER)
    assert received.instruction == 'the mugs ?'  # a lone surrogate cannot be sent


def test_label_image_shows_the_higher_score_on_top():
    masks = np.zeros((3, 6, 9), bool)
    masks[0, 1:4, 1:4] = True
    masks[1, 2:6, 2:6] = True
    masks[2] = True
    label_image = messages.label_image(result_of(masks).instances, 6, 9, HEADER)
    expected = np.full((6, 9), 3)
    expected[2:6, 2:6] = 2
    expected[1:4, 1:4] = 1
    assert (label_image.encoding, label_image.height, label_image.width, label_image.step) == ('16UC1', 6, 9, 18)
    assert label_image.header == HEADER
    assert np.array_equal(np.frombuffer(label_image.data, np.uint16).reshape(6, 9), expected)


def test_label_image_without_instances_is_background():
    assert not any(messages.label_image((), 6, 9, HEADER).data)


def test_image_msg_reads_back():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
    for pixels in (rgb, rgb[:, ::-1]):  # the second is not contiguous
        received = serialized_and_back(messages.image_msg(pixels, HEADER))
        assert received.header == HEADER
        assert np.array_equal(images.to_rgb(received), pixels)


def test_result_from_msg_returns_all_that_the_message_has():
    result = result_of(some_masks(), warning='only for tables', timings_ms=dict.fromkeys(STEPS, 1.5))
    received = messages.result_from_msg(serialized_and_back(messages.to_msg(result, HEADER, 'the mugs', 1)))
    assert (received.instruction, received.answer, received.warning) == ('the mugs', 'answer', 'only for tables')
    assert (received.height, received.width, received.timings_ms) == (33, 47, result.timings_ms)
    for instance, source in zip(received.instances, result.instances, strict=True):
        assert np.array_equal(instance.mask.decode(), source.mask.decode())
        assert (instance.score, instance.phrase, instance.slot) == (pytest.approx(source.score), source.phrase, None)


def test_the_result_of_a_failure_is_not_one_without_a_target():
    failed = messages.error_msg('no image', HEADER, 'the mugs', 1, (33, 47))
    result = messages.result_from_msg(failed)
    assert (result.status, result.ended_by) == ('error', '')  # no limit ended it
    nothing = messages.to_msg(result_of(some_masks()[:0]), HEADER, 'the mugs', 1)
    assert messages.result_from_msg(nothing).status == 'no_target'


def test_depth_msg_reads_back():
    depth_mm = np.arange(40, dtype=np.uint16).reshape(5, 8) * 1000
    received = serialized_and_back(messages.depth_msg(depth_mm, HEADER))
    assert received.header == HEADER
    assert np.array_equal(to_depth(received), depth_mm)
