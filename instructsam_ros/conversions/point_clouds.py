"""The topic `~/points`: the points of all objects with their colours and the instance that each belongs to.

Why not sensor_msgs_py.point_cloud2.create_cloud: the ROS wheels that pip installs do not include it.
"""

import sys

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from instructsam.core.result import Result
from instructsam_ros.conversions.instances import byte_array

POINT = np.dtype([('x', '=f4'), ('y', '=f4'), ('z', '=f4'), ('rgb', '=u4'), ('instance', '=u4')])
DATATYPES = {
    'x': PointField.FLOAT32,
    'y': PointField.FLOAT32,
    'z': PointField.FLOAT32,
    'rgb': PointField.FLOAT32,
    'instance': PointField.UINT32,
}


def cloud(result: Result, image: np.ndarray, header: Header) -> PointCloud2:
    """Return the points of all located instances as an unorganised, dense PointCloud2.

    Fields: x, y, z float32 m; rgb, 0x00RRGGBB in the bits of a float32 as PCL and RViz expect it; instance uint32,
    the index into `result.instances`.

    Args:
        result: instances with their geometry.
        image: the image of the result, [H, W, 3] uint8 RGB.
        header: has the frame of the geometry.
    """
    located = [(index, each.geometry) for index, each in enumerate(result.instances) if each.geometry is not None]
    points = np.empty(sum(geometry.surface.count for _, geometry in located), POINT)
    colors, start = image.reshape(-1, 3), 0
    for index, geometry in located:
        part = points[start : start + geometry.surface.count]
        part['x'], part['y'], part['z'] = geometry.points.T
        red, green, blue = colors[geometry.pixels].astype(np.uint32).T
        part['rgb'] = red << 16 | green << 8 | blue
        part['instance'] = index
        start += len(part)
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=[
            PointField(name=name, offset=4 * number, datatype=datatype, count=1)  # every field has four bytes
            for number, (name, datatype) in enumerate(DATATYPES.items())
        ],
        is_bigendian=sys.byteorder == 'big',
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * len(points),
        is_dense=True,
        data=byte_array('B', points.view(np.uint8)),
    )


def read_cloud(msg: PointCloud2) -> tuple[np.ndarray, np.ndarray]:
    """Return the points [N, 3] float32 m and the index of the instance [N] uint32 of a PointCloud2 from `cloud`."""
    points = np.frombuffer(msg.data, POINT)
    return np.stack([points[axis] for axis in 'xyz'], axis=1), points['instance']
