import base64

import cv2
import numpy as np
import pytest

from instructsam.core.display.jpeg import MAX_SIDE, encode_jpeg, jpeg_url, shrink_to
from instructsam.core.errors import ImageError


def test_a_jpeg_file_has_the_colours_of_the_image():
    image = np.full((24, 40, 3), (250, 120, 10), np.uint8)
    bgr = cv2.imdecode(np.frombuffer(encode_jpeg(image), np.uint8), cv2.IMREAD_COLOR)
    assert bgr.shape == image.shape
    assert np.abs(bgr[..., ::-1].astype(int) - image).max() <= 3


def test_the_url_holds_the_file():
    image = np.zeros((8, 8, 3), np.uint8)
    head, content = jpeg_url(image, 80).split(',')
    assert (head, base64.b64decode(content)) == ('data:image/jpeg;base64', encode_jpeg(image, 80))


@pytest.mark.parametrize(
    ('image', 'said'),
    [
        (np.zeros((4, 4, 3), np.float32), 'uint8'),
        (np.zeros((4, 4), np.uint8), r'\[4, 4\]'),
        (np.zeros((0, 4, 3), np.uint8), r'\[0, 4, 3\]'),
        (np.zeros((1, MAX_SIDE + 1, 3), np.uint8), str(MAX_SIDE)),
    ],
)
def test_an_image_that_no_jpeg_file_can_hold(image, said):
    with pytest.raises(ImageError, match=said):
        encode_jpeg(image)


@pytest.mark.parametrize(
    ('shape', 'shrunk'), [((40, 80), (25, 50)), ((80, 40), (50, 25)), ((1, 200), (1, 50)), ((30, 50), (30, 50))]
)
def test_shrinking_keeps_the_ratio_and_never_enlarges(shape, shrunk):
    assert shrink_to(np.zeros((*shape, 3), np.uint8), 50).shape == (*shrunk, 3)
