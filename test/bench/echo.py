"""A bare rclpy node that answers every image with its header: what the middleware and Python take in any node."""

import contextlib

import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from instructsam_ros.node import qos


def main():
    rclpy.init()
    node = rclpy.create_node('echo')
    publisher = node.create_publisher(Header, 'echo/header', 10)
    node.create_subscription(Image, 'echo/image', lambda image: publisher.publish(image.header), qos.CAMERA_INPUT)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == '__main__':
    main()
