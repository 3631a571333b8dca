"""Image preprocessing on the CPU: sizes and patch order for Qwen, the square input of SAM3."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instructsam.core import ImageError, ModelError
from instructsam.core.model.preprocess import QwenPreprocessor, normalise, resize, sam_pixels, to_chw

PUBLISHED = QwenPreprocessor(min_pixels=65536, max_pixels=16777216)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((480, 640), (480, 640)),
        ((720, 1280), (704, 1280)),  # 22.5 units of 32 px, rounded half to even
        ((1, 1), (256, 256)),  # enlarged to min_pixels
        ((4320, 7680), (3072, 5440)),  # reduced to max_pixels
        ((10, 2000), (32, 3648)),
    ],
)
def test_target_size(size, expected):
    height, width = PUBLISHED.target_size(*size)
    assert height % 32 == width % 32 == 0
    assert PUBLISHED.min_pixels <= height * width <= PUBLISHED.max_pixels
    assert (height, width) == expected


def test_sizes_match_transformers():
    smart_resize = pytest.importorskip(
        'transformers.models.qwen2_vl.image_processing_qwen2_vl',
        reason="this release of transformers needs torchvision for Qwen's image processor",
        exc_type=ImportError,
    ).smart_resize
    random = np.random.default_rng(0)
    for height, width in random.integers(1, 5000, (500, 2)).tolist():
        if max(height, width) <= 200 * min(height, width):
            expected = smart_resize(
                height, width, factor=32, min_pixels=PUBLISHED.min_pixels, max_pixels=PUBLISHED.max_pixels
            )
            assert PUBLISHED.target_size(height, width) == expected, (height, width)


def test_patches_that_merge_follow_each_other():
    """Patches, whose colour is their number, are in the order of Qwen's merger: 2 x 2 squares, row by row."""
    preprocessor = QwenPreprocessor(min_pixels=1, max_pixels=10**6)
    rows, columns = 4, 6
    numbers = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns)
    image = np.repeat(np.repeat(numbers, 16, 0), 16, 1)[..., None].repeat(3, -1)
    patches, grid = preprocessor(to_chw(image), 'cpu', torch.float32)
    assert grid == (1, rows, columns)
    assert patches.shape == (rows * columns, 3 * 2 * 16 * 16)
    seen = ((patches[:, 0] * 0.5 + 0.5) * 255).round().int().tolist()
    squares = [
        int(number)
        for r in range(0, rows, 2)
        for c in range(0, columns, 2)
        for number in numbers[r : r + 2, c : c + 2].ravel()
    ]
    assert seen == squares


def test_channels_time_and_pixels_within_a_patch():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    patches, _ = QwenPreprocessor(min_pixels=1, max_pixels=10**6)(to_chw(image), 'cpu', torch.float32)
    first = patches[0].view(3, 2, 16, 16)
    expected = normalise(torch.from_numpy(image[:16, :16]).permute(2, 0, 1), torch.float32)
    assert torch.equal(first[:, 0], expected)
    assert torch.equal(first[:, 1], expected)


@pytest.mark.parametrize('dtype', ['>u2', '<f4', '>f4', '?', 'O', 'U1'])
def test_arrays_of_another_type_are_refused(dtype):
    with pytest.raises(ImageError, match='uint8'):
        to_chw(np.zeros((4, 4, 3), dtype))


def test_a_field_of_a_packed_array_is_refused():
    packed = np.zeros((4, 4, 3), [('a', 'u1'), ('b', '<f4')])
    with pytest.raises(ImageError, match='uint8, got an array of float32'):
        to_chw(packed['b'])


def test_sam_input_is_square_and_stretched():
    image = np.zeros((60, 200, 3), np.uint8)
    image[:, 100:] = 255
    pixels = sam_pixels(to_chw(image), 56, torch.device('cpu'), torch.float32)
    assert pixels.shape == (1, 3, 56, 56)
    assert (pixels[..., :20] == -1).all()
    assert (pixels[..., 36:] == 1).all()


@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
def test_memory_layout_does_not_change_a_pixel(mode):
    """A transposed [H, W, 3] array is channels-last memory, for which torch has a kernel that rounds differently."""
    image = np.random.default_rng(0).integers(0, 256, (97, 143, 3), dtype=np.uint8)
    planar = torch.from_numpy(image.transpose(2, 0, 1).copy())
    assert torch.equal(resize(to_chw(image), 64, 64, mode), resize(planar, 64, 64, mode))


@pytest.mark.parametrize(('mode', 'side', 'most'), [('bilinear', 64, 1), ('bilinear', 300, 1), ('bicubic', 64, 5)])
def test_resizing_as_on_the_gpu_stays_close(image, mode, side, most):
    """The GPU's path (floats, rounded at the end) is close to the exact one; both can run on the CPU."""
    chw = to_chw(image)
    floats = F.interpolate(chw[None].float(), size=(side, side), mode=mode, antialias=True)[0]
    difference = (floats.round().clamp(0, 255).int() - resize(chw, side, side, mode).int()).abs()
    assert difference.max() <= most
    assert (difference > 1).float().mean() < 0.01


def test_a_broken_preprocessor_config_is_named(tmp_path):
    with pytest.raises(ModelError, match=r'no preprocessor_config\.json'):
        QwenPreprocessor.from_folder(tmp_path)
    (tmp_path / 'preprocessor_config.json').write_text('{"patch_size": 16}')
    with pytest.raises(ModelError, match='not an image preprocessor'):
        QwenPreprocessor.from_folder(tmp_path)
