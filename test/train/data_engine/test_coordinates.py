"""Boxes in the conventions of several families of models, on pictures that are not square."""

import pytest

from instructsam.train.data_engine.coordinates import CONVENTIONS, box_iou

BOX = (64.0, 120.0, 320.0, 360.0)


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('gemini', (250, 100, 750, 500)),
        ('qwen3-vl', (100, 250, 500, 750)),
        ('pixels', (32, 60, 160, 180)),
        ('pixels-xywh', (32, 60, 128, 120)),
        ('shares', (0.1, 0.25, 0.5, 0.75)),
        ('qwen2.5-vl', (30.8, 63, 154, 189)),  # 240 x 320 px is resized to 252 x 308
    ],
)
def test_the_numbers_of_a_family_become_pixels_of_the_upright_picture(name, values):
    sent, full = (240, 320), (480, 640)
    assert CONVENTIONS[name].to_box(values, sent, full) == pytest.approx(BOX)
    assert CONVENTIONS[name].to_values(BOX, sent, full) == pytest.approx(values)


def test_the_prompt_names_field_order_and_unit():
    assert CONVENTIONS['gemini'].describe() == (
        'box_2d: [ymin, xmin, ymax, xmax], integers from 0 to 1000, relative to the sides of the image'
    )


@pytest.mark.parametrize(
    ('box', 'iou'), [(BOX, 1), ((320, 120, 64, 360), 0), ((64, 120, 192, 360), 0.5), ((400, 0, 500, 9), 0)]
)
def test_box_iou(box, iou):
    assert box_iou(BOX, box) == iou
