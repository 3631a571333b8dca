"""A scene as a figure of plotly.js: points, boxes and grasp candidates that turn with the mouse.

The figure is the JSON that plotly.js draws. The Python package plotly, which would check it, takes 64 MB.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from instructsam.core.display.overlay import Color, instance_color
from instructsam.core.result import Result
from instructsam.core.spatial.grasping import Grasp
from instructsam.core.text import shorten
from instructsam.core.web.scene import Scene, SceneObject

EDGES = tuple((a, a | 1 << axis) for a in range(8) for axis in range(3) if not a >> axis & 1)
"""Pairs of corners of a box, as in SceneObject.corners."""

FINGER_M = 0.04  # length of the drawn fingers
GRASP = 'rgb(230, 0, 140)'  # unlike the colors of instances, and seen on light and dark


def scene_figure(scene: Scene, result: Result) -> dict[str, Any]:
    """Return the figure of a scene: the surroundings, then points and box, and the grasps, of each object."""
    traces = []
    if len(scene.points):
        traces.append(_cloud(scene.points, [_rgb(color) for color in scene.colors.tolist()], 'surroundings', size=1.6))
    for each in scene.objects:
        instance = result.instances[each.index]
        name = f'{each.index + 1} {shorten(instance.phrase, 40)} {instance.score:.2f}'
        traces += _object(each, name, instance_color(each.index))
        for number, grasp in enumerate(each.grasps):
            traces.append(_gripper(grasp, f'grasp {number + 1} of {each.index + 1}', is_best=number == 0))
    return {'data': traces, 'layout': _layout(scene)}


def _object(each: SceneObject, name: str, color: Color) -> list[dict[str, Any]]:
    """Return the points and the box of an object, which the legend shows and hides together."""
    group = f'object {each.index}'
    size = ' x '.join(f'{100 * value:.1f}' for value in each.size_m)
    position = ', '.join(f'{value:.3f}' for value in each.center)
    text = f'{_plain(name)}<br>{size} cm<br>at ({position}) m'
    corners = each.corners
    box = _lines([(corners[a], corners[b]) for a, b in EDGES])
    return [
        _cloud(each.points, _rgb(color), _plain(name), size=2.2) | {'legendgroup': group, 'hovertext': text},
        {
            'type': 'scatter3d',
            'mode': 'lines',
            **box,
            'line': {'color': _rgb(color), 'width': 5},
            'name': _plain(name),
            'legendgroup': group,
            'showlegend': False,
            'hoverinfo': 'text',
            'hovertext': text,
        },
    ]


def _gripper(grasp: Grasp, name: str, *, is_best: bool) -> dict[str, Any]:
    """Return two fingers, the palm and the approach of a grasp."""
    side = grasp.rotation[:, 0] * grasp.opening_m / 2
    back = -grasp.rotation[:, 2] * FINGER_M
    left, right = grasp.position + side, grasp.position - side
    palm = grasp.position + back
    lines = _lines([(left, left + back), (right, right + back), (left + back, right + back), (palm, palm + back)])
    return {
        'type': 'scatter3d',
        'mode': 'lines',
        **lines,
        'line': {'color': GRASP, 'width': 6 if is_best else 3},
        'opacity': 1.0 if is_best else 0.45,
        'name': name,
        'visible': True if is_best else 'legendonly',
        'hoverinfo': 'text',
        'hovertext': f'{name}<br>quality {grasp.quality:.2f}<br>opens {100 * grasp.opening_m:.1f} cm',
    }


def _cloud(points: np.ndarray, color: str | list[str], name: str, *, size: float) -> dict[str, Any]:
    return {
        'type': 'scatter3d',
        'mode': 'markers',
        **_axes(points),
        'marker': {'size': size, 'color': color},
        'name': name,
        'hoverinfo': 'text' if isinstance(color, str) else 'skip',
    }


def _lines(segments: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float | None]]:
    """Return the coordinates of separate lines; None ends a line."""
    axes: dict[str, list[float | None]] = {'x': [], 'y': [], 'z': []}
    for start, end in segments:
        for axis, a, b in zip('xyz', start.tolist(), end.tolist(), strict=True):
            axes[axis] += [round(a, 4), round(b, 4), None]
    return axes


def _axes(points: np.ndarray) -> dict[str, list[float]]:
    return {axis: np.round(points[:, i].astype(float), 4).tolist() for i, axis in enumerate('xyz')}


def _layout(scene: Scene) -> dict[str, Any]:
    # The camera of an optical frame is above and behind the real one and looks along its axis.
    up, eye = ((0, -1, 0), (0.1, -1.3, -1.3)) if scene.is_optical else ((0, 0, 1), (-1.4, -0.6, 0.9))
    axes = {f'{axis}axis': {'title': {'text': f'{axis} (m)'}} for axis in 'xyz'}
    camera = {name: dict(zip('xyz', values, strict=True)) for name, values in (('up', up), ('eye', eye))}
    return {
        'scene': {'aspectmode': 'data', 'camera': camera, **axes},
        'margin': {'l': 0, 'r': 0, 't': 0, 'b': 0},
        'legend': {'orientation': 'h', 'itemsizing': 'constant', 'y': 0},
        'height': 460,
        'paper_bgcolor': 'rgba(0, 0, 0, 0)',  # transparent: the page is light or dark
        'font': {'color': '#808893'},
        'uirevision': scene.frame,
    }


def _plain(text: str) -> str:
    """Escape what plotly.js would read as markup."""
    return text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')


def _rgb(color: Color | list[int]) -> str:
    return f'rgb({color[0]}, {color[1]}, {color[2]})'
