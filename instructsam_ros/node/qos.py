"""QoS profiles of every topic and service of the package."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Instructions and scene descriptions: a subscriber that starts late still receives the latest message."""

INSTRUCTION = QoSProfile(depth=10)
"""Instructions of volatile publishers, such as `ros2 topic pub` without options."""

CAMERA_INPUT = QoSProfile(depth=15, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Images, depth and camera infos that the node subscribes to.

Best effort as for all sensor data, but deeper than the usual 5: images that arrive in a burst, or while this process is
not scheduled, would be replaced in the middleware (measured: 1 of 17,940 images at 30 Hz on a busy machine).
"""

CAMERA_OUTPUT = QoSProfile(depth=5)
"""Images of the simulated camera. Reliable, because RViz asks for that; best-effort subscribers receive them too."""

ACTION = QoSProfile(history=HistoryPolicy.KEEP_ALL, depth=1000)
"""Services of the action `segment`, at the node and at its clients; the depth is ignored by most middlewares.

Every client of a service receives the responses to all clients and picks its own. With a limited depth, requests and
responses of a burst replace each other in the middleware and are never answered (measured: at depth 100, of 300 goals
sent at the same time 114).
"""

REPLAY = QoSProfile(depth=100)
"""Recorded topics in general; cameras, instructions and static transforms have separate profiles."""

REPLAY_CAMERA = qos_profile_sensor_data
"""Recorded camera topics: sent as a camera driver sends them."""

REPLAY_STATIC_TRANSFORMS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Recorded /tf_static: late subscribers receive all transforms, which may be spread over many messages."""
