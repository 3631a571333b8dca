"""Draws a result as Foxglove and RViz show it, without either and without a screen: docs/views.png.

    python scripts/draw_views.py [OUT.png] [--split test] [--seed 7] [--index 2] [--instruction "the apples"]

On the left `~/overlay`; on the right, in 3D, the table, `~/points`, the boxes and names of `~/markers`, and the best
candidate of `~/grasp_candidates` for each object. Needs the extras tabletop and docs.
"""

import argparse
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import numpy as np

from instructsam.core import InstructSAM
from instructsam.core.display.overlay import draw_overlay, instance_color
from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.geometry import locate
from instructsam.core.spatial.grasping import Gripper, grasp_candidates
from instructsam.train.tabletop.generate import depth_mm
from instructsam.train.tabletop.scenes.scene import render_scene

OUT = Path(__file__).parents[1] / 'docs' / 'views.png'
SIZE = 640, 480
PIXEL_STEP = 2  # Every second pixel of the image is drawn as a point.
MAX_OBJECT_POINTS = 1500
BACKGROUND_MARGIN_M = 0.25  # The background is drawn up to this distance beyond the farthest object.
BOX_EDGES = [[a, b] for a, b in product(range(8), repeat=2) if a < b and (a ^ b) in (1, 2, 4)]  # pairs of corners


def draw_scene(axes, made, result):
    """Draw a scene and its result in the world frame, as with the node's parameter target_frame."""
    rotation, translation = made.camera.rotation, made.camera.position
    camera = CameraModel(*made.depth.shape, made.camera.intrinsics)
    located = [each for each in locate(result, depth_mm(made.depth), camera).instances if each.geometry is not None]
    x, y = (ray[::PIXEL_STEP, ::PIXEL_STEP] for ray in camera.rays)
    z = made.depth[::PIXEL_STEP, ::PIXEL_STEP]
    near = (z > 0) & (z < BACKGROUND_MARGIN_M + max(each.geometry.center[2] for each in located))
    points = np.stack([x * z, y * z, z], axis=-1)[near] @ rotation.T + translation
    axes.scatter(*points.T, s=1.5, c=made.rgb[::PIXEL_STEP, ::PIXEL_STEP][near] / 255, alpha=0.8, linewidths=0)
    for index, instance in enumerate(located):
        geometry, ink = instance.geometry.moved(rotation, translation), np.array(instance_color(index)) / 255
        points = geometry.points[:: 1 + len(geometry.points) // MAX_OBJECT_POINTS]
        axes.scatter(*points.T, s=1.5, color=ink, linewidths=0)
        signs = np.array(list(product((-0.5, 0.5), repeat=3)))
        corners = geometry.center + signs * geometry.size_m @ geometry.rotation.T
        for edge in BOX_EDGES:
            axes.plot(*corners[edge].T, color=ink, linewidth=1.5)
        above = geometry.center + geometry.rotation[:, 2] * (geometry.size_m[2] / 2 + 0.12)
        axes.text(*above, f'{instance.phrase} {instance.score:.2f}', fontsize=9, ha='center')
        for grasp in grasp_candidates(geometry, limit=1):
            draw_grasp(axes, grasp)


def draw_grasp(axes, grasp, finger_m=0.05):
    """Draw a grasp as a fork: two fingers, the palm and the approach direction."""
    x, z = grasp.rotation[:, 0] * Gripper().opening_m / 2, grasp.rotation[:, 2] * finger_m
    tips = [grasp.position - x, grasp.position + x]
    fork = np.stack(
        [tips[0], tips[0] - z, grasp.position - z, grasp.position - 2 * z, grasp.position - z, tips[1] - z, tips[1]]
    )
    axes.plot(*fork.T, color='black', linewidth=1.6)


def main():
    """Render a scene, answer the instruction and save the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', nargs='?', type=Path, default=OUT)
    parser.add_argument('--split', default='test')
    parser.add_argument('--seed', type=int, default=7)
    parser.add_argument('--index', type=int, default=2)
    parser.add_argument('--instruction', default='the apples')
    args = parser.parse_args()

    made = render_scene(args.split, args.index, args.seed, size=SIZE)
    engine = InstructSAM.from_pretrained('tabletop')
    result = engine.segment(engine.encode(made.rgb), args.instruction)

    figure = plt.figure(figsize=(13, 5), dpi=110)
    left = figure.add_axes((0, 0, 0.5, 1), zorder=1)
    left.imshow(draw_overlay(made.rgb, result))
    left.axis('off')
    right = figure.add_axes((0.46, -0.25, 0.6, 1.6), projection='3d')
    draw_scene(right, made, result)
    azimuth_deg = np.degrees(np.arctan2(*made.camera.position[1::-1]))
    right.view_init(elev=35, azim=azimuth_deg + 20)
    ends = np.array([right.get_xlim(), right.get_ylim(), right.get_zlim()])
    right.set_box_aspect(np.ptp(ends, axis=1), zoom=1.35)  # the same scale along all axes
    right.axis('off')
    figure.savefig(args.out)
    print(f'{len(result.instances)} instances: {args.out}')


if __name__ == '__main__':
    main()
