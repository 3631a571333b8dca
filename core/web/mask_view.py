"""Masks that react to the pointer, with a table of the objects: HTML without a script.

Masks are paths of an SVG over the image, so that the pointer finds exactly the pixels of an object. Rules of style with
`:has()` connect them with the rows of the table: a row under the pointer dims the other masks, its box hides the mask.
Everything that comes from a model or a user is escaped.
"""

from __future__ import annotations

from html import escape

import cv2
import numpy as np

from instructsam.core.display.jpeg import jpeg_url, shrink_to
from instructsam.core.display.lettering import printable
from instructsam.core.display.overlay import instance_color
from instructsam.core.result import UNTRACKED, Instance, Result
from instructsam.core.rle import Rle
from instructsam.core.web.scene import Scene, SceneObject

LONGEST_SIDE_PX = 1600  # longest side of the image in the page


def mask_view(image: np.ndarray, result: Result, scene: Scene | None = None) -> str:
    """Return the image with its masks, and the table of the objects, as HTML.

    Args:
        image: [H, W, 3] uint8 RGB.
        result: The result about it.
        scene: The located objects of the result.
    """
    height, width = image.shape[:2]
    shown = list(enumerate(result.instances))
    line = max(1.0, (height * width) ** 0.5 / 320)
    masks = ''.join(_mask(index, instance, line) for index, instance in reversed(shown))
    badges = ''.join(_badge(index, instance, 9 * line, (height, width)) for index, instance in reversed(shown))
    located = {each.index: each for each in scene.objects} if scene else {}
    rows = ''.join(_row(index, instance, located.get(index), has_scene=scene is not None) for index, instance in shown)
    head = f'<tr><th></th><th>object</th><th>score</th><th>{"size, position" if scene else "box"}</th></tr>'
    table = f'<table class="is-objects"><thead>{head}</thead><tbody>{rows}</tbody></table>' if rows else ''
    picture = jpeg_url(shrink_to(image, LONGEST_SIDE_PX))
    return (
        f'<div class="is-view"><style>{"".join(_rules(index) for index, _ in shown)}</style>'
        f'<svg class="is-image" viewBox="0 0 {width} {height}" role="img" aria-label="image with {len(shown)} masks">'
        f'<image href="{picture}" width="{width}" height="{height}"/>{masks}{badges}</svg>{table}</div>'
    )


def outline(mask: Rle) -> str:
    """Return the outlines of a mask and of its holes as the data of an SVG path, px."""
    x0, y0, _, _ = mask.box
    pixels = np.ascontiguousarray(mask.crop()).view(np.uint8)
    contours, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(x0, y0))
    simple = [cv2.approxPolyDP(contour, 0.7, closed=True)[:, 0] for contour in contours]
    # Contours pass through the centres of pixels, which are at half coordinates in an SVG.
    return ''.join(f'M{"L".join(f"{x}.5 {y}.5" for x, y in points.tolist())}Z' for points in simple)


def _mask(index: int, instance: Instance, line: float) -> str:
    color = _hex(index)
    return (
        f'<path class="is-mask m{index}" d="{outline(instance.mask)}" fill="{color}" stroke="{color}" '
        f'stroke-width="{line:.1f}"><title>{_label(index, instance)}</title></path>'
    )


def _badge(index: int, instance: Instance, size: float, bounds: tuple[int, int]) -> str:
    """Return the number of an object above its mask."""
    x0, y0, x1, _ = instance.box
    height, width = bounds
    x, y = min(max((x0 + x1) / 2, size), width - size), min(max(y0, size), height - size)
    return (
        f'<g class="is-badge m{index}"><circle cx="{x:.1f}" cy="{y:.1f}" r="{size * 0.8:.1f}" fill="{_hex(index)}"/>'
        f'<text x="{x:.1f}" y="{y + size * 0.36:.1f}" font-size="{size:.1f}">{index + 1}</text></g>'
    )


def _row(index: int, instance: Instance, located: SceneObject | None, *, has_scene: bool) -> str:
    name = escape(printable(instance.phrase)) + (
        f' <small>id {instance.track_id}</small>' if instance.track_id != UNTRACKED else ''
    )
    percent = 100 * min(max(instance.score, 0.0), 1.0)
    box = f'<input type="checkbox" checked aria-label="show object {index + 1}" style="accent-color:{_hex(index)}">'
    return (
        f'<tr class="is-row r{index}"><td><label>{box}<b style="background:{_hex(index)}">{index + 1}</b></label></td>'
        f'<td>{name}</td><td><meter min="0" max="100" value="{percent:.1f}"></meter> {instance.score:.2f}</td>'
        f'<td>{_place(instance, located) if has_scene else " ".join(map(str, instance.box))}</td></tr>'
    )


def _place(instance: Instance, located: SceneObject | None) -> str:
    if located is None:
        return escape(instance.geometry_message or 'not measured')
    size = ' &times; '.join(f'{100 * value:.1f}' for value in located.size_m)
    place = ', '.join(f'{value:.3f}' for value in located.center)
    best = f', best grasp {located.grasps[0].quality:.2f}' if located.grasps else ''
    reason = f'<br><small>no grasp: {escape(located.no_grasp)}</small>' if located.no_grasp else ''
    return f'{size} cm<br><small>at {place} m{best}</small>{reason}'


def _rules(index: int) -> str:
    """Return the rules that connect one mask with its row."""
    view = '.is-view:has('
    return (
        f'{view}.r{index} input:not(:checked)) .m{index}{{display:none}}'
        f'{view}.r{index}:hover) .is-mask:not(.m{index}){{opacity:.12}}'
        f'{view}.r{index}:hover) .m{index}.is-mask{{fill-opacity:.6}}'
        f'{view}.m{index}:hover) .r{index}{{background:var(--is-hover)}}'
    )


def _label(index: int, instance: Instance) -> str:
    return escape(f'{index + 1} {printable(instance.phrase)} {instance.score:.2f}')


def _hex(index: int) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*instance_color(index))
