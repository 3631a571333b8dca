"""The topic `~/points`: the points of all objects with their colours, and which instance each belongs to."""

import sys

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from instructsam_ros.conversions.instances import byte_array

POINT = np.dtype([('x', '=f4'), ('y', '=f4'), ('z', '=f4'), ('rgb', '=u4'), ('instance', '=u4')])
FIELDS = {
    'x': PointField.FLOAT32,
    'y': PointField.FLOAT32,
    'z': PointField.FLOAT32,
    'rgb': PointField.FLOAT32,
    'instance': PointField.UINT32,
}


def cloud(result, image, header):
    """The PointCloud2 of all located instances, unorganised and dense.

    Fields: x, y, z float32 m; rgb, 0x00RRGGBB in the bits of a float32 as PCL and RViz have it; instance uint32, the
    index into the result's instances. `image` [H, W, 3] uint8 RGB is the one of the result; `header` has the frame of
    the geometry.
    """
    located = [(i, each.geometry) for i, each in enumerate(result.instances) if each.geometry is not None]
    points = np.empty(sum(geometry.surface.count for _, geometry in located), POINT)
    colors, start = image.reshape(-1, 3), 0
    for index, geometry in located:
        part = points[start : start + geometry.surface.count]
        part['x'], part['y'], part['z'] = geometry.points.T
        red, green, blue = colors[geometry.pixels].astype(np.uint32).T
        part['rgb'] = red << 16 | green << 8 | blue
        part['instance'] = index
        start += len(part)
    fields = [
        PointField(name=name, offset=POINT.fields[name][1], datatype=kind, count=1) for name, kind in FIELDS.items()
    ]
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=sys.byteorder == 'big',
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * len(points),
        is_dense=True,
        data=byte_array('B', points.view(np.uint8)),
    )


def read_cloud(message):
    """([N, 3] float32 m, [N] index of the instance) of a PointCloud2 of this package."""
    points = np.frombuffer(message.data, POINT)
    return np.stack([points[axis] for axis in 'xyz'], axis=1), points['instance']
