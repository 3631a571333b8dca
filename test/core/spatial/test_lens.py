"""Lens models: a pixel gets the ray that OpenCV projects onto it, or none."""

import cv2
import numpy as np
import pytest

from instructsam.core.errors import GeometryError
from instructsam.core.spatial.lens import MAX_ANGLE, Lens

OAK_D_W = (  # factory calibration of an OAK-D W (introlab/rtabmap pull request 1560)
    *(0.33380478620529175, -0.03907599672675133, -7.13491317583248e-05, -1.846958912210539e-05, -0.001497764838859439),
    *(0.6651358008384705, -0.00981089286506176, -0.009321174584329128, 0.0, 0.0, 0.0, 0.0),
    *(0.0001969414297491312, -0.0005316970637068152),
)
FOLDING = (  # rational function with a maximum inside the image (opencv issue 20736)
    *(2.9972164630889893, -6.0928826332092285, 0.0005746248061768711, -4.857033854932524e-05, -1.2618762254714966),
    *(3.5340938568115234, -4.270793914794922, -5.302351951599121),
)
FISHEYE = (-0.0055, 0.044, -0.042, 0.0078)


def grid(width, height, focal):
    """Return distorted coordinates x and y, each [N], of every 8th pixel of an image."""
    columns, rows = np.meshgrid(np.arange(0, width, 8), np.arange(0, height, 8))
    return (columns.ravel() - (width - 1) / 2) / focal, (rows.ravel() - (height - 1) / 2) / focal


def projected(lens, u, v):
    points = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 1, 3)
    none = np.zeros(3)
    project = cv2.fisheye.projectPoints if lens.model == 'equidistant' else cv2.projectPoints
    return project(points, none, none, np.eye(3), np.array(lens.coefficients))[0].reshape(-1, 2).T


@pytest.mark.parametrize(
    ('lens', 'size', 'focal', 'solved'),
    [
        (Lens('plumb_bob', (-0.361976, 0.110510, 0.001014, 0.000505, 0.0)), (640, 480), 438.0, 1.0),
        (Lens('', (-0.36, 0.11, 0.001, 0.0005)), (640, 480), 438.0, 1.0),
        (Lens('rational_polynomial', OAK_D_W), (1280, 800), 620.0, 1.0),
        (Lens('rational_polynomial', OAK_D_W), (1280, 800), 500.0, 0.9),
        (Lens('rational_polynomial', (*OAK_D_W[:8], 0.01, -0.004, 0.006, 0.003)), (1280, 800), 800.0, 1.0),
        (Lens('rational_polynomial', (*OAK_D_W[:8], 0.01, 0, 0.006, 0, 0.02, -0.03)), (1280, 800), 800.0, 1.0),
        (Lens('rational_polynomial', FOLDING), (3840, 2180), 2421.8, 0.69),
        (Lens('equidistant', FISHEYE), (848, 800), 286.0, 0.68),
        (Lens('equidistant', (0.05, -0.01, 0.002, -0.001)), (640, 480), 400.0, 1.0),
    ],
    ids=['wide', 'no name', 'OAK-D W', 'OAK-D W, wider', 'prism', 'tilted', 'folding', 'fisheye', 'mild fisheye'],
)
def test_rays_project_onto_their_pixels_or_are_nan(lens, size, focal, solved):
    x, y = grid(*size, focal)
    u, v = lens.undistort(x, y)
    is_solved = np.isfinite(u)
    assert np.array_equal(is_solved, np.isfinite(v))
    assert is_solved.mean() == pytest.approx(solved, abs=0.02)
    again = projected(lens, u[is_solved], v[is_solved])
    np.testing.assert_allclose(again * focal, np.stack([x, y])[:, is_solved] * focal, atol=1e-4)


def test_a_ray_is_the_one_nearest_to_the_axis():
    """Beyond the maximum of the image radius a second ray has the same pixel."""
    lens = Lens('plumb_bob', (-0.4, 0.0, 0.0, 0.0))  # its radius has its maximum at 0.91
    radius = np.linspace(0, 0.85, 50)
    distorted = radius * (1 - 0.4 * radius**2)
    np.testing.assert_allclose(lens.undistort(distorted, np.zeros(50))[0], radius, atol=1e-7)
    assert np.isnan(lens.undistort(np.array([0.62]), np.zeros(1))[0]).all()


def test_a_fisheye_has_no_rays_beside_and_behind_the_camera():
    ideal = Lens('equidistant', (1e-9, 0.0, 0.0, 0.0))
    angles = np.radians([0, 45, 70, 79.9, 80.1, 90, 120, 179])
    found, _ = ideal.undistort(angles, np.zeros(len(angles)))
    np.testing.assert_allclose(found[:4], np.tan(angles[:4]), rtol=1e-6)
    assert np.isnan(found[angles > MAX_ANGLE]).all()


@pytest.mark.parametrize(
    ('model', 'coefficients', 'says'),
    [
        ('magic', (0.1,) * 5, "got 'magic'"),
        ('plumb_bob', (0.1,) * 8, "got 'plumb_bob' with"),
        ('plumb_bob', (0.1, np.nan, 0.0, 0.0, 0.0), 'not finite'),
        ('equidistant', (0.0,) * 4, 'all zero: an ideal fisheye, or an image without distortion'),
        ('equidistant', (), 'all zero'),
        ('fisheye', (), 'all zero'),
    ],
)
def test_lenses_that_are_not_defined_are_refused(model, coefficients, says):
    with pytest.raises(GeometryError, match=says):
        Lens(model, coefficients)


@pytest.mark.parametrize(('model', 'coefficients'), [('plumb_bob', (0.0,) * 5), ('', ()), ('none', (0.0,) * 5)])
def test_zeros_are_a_pinhole(model, coefficients):
    lens = Lens(model, coefficients)
    assert not lens.has_distortion
    x = np.array([0.1, 5.0])
    assert lens.undistort(x, x) == (x, x) or np.array_equal(lens.undistort(x, x), (x, x))
