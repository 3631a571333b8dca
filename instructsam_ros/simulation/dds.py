"""Settings of the DDS middleware for processes that publish raw images."""

import os
from pathlib import Path

PROFILES = Path(__file__).parents[1] / 'data' / 'fastdds_images.xml'


def use_large_image_dds_profile() -> None:
    """Select the Fast DDS profile for large images, unless the environment names another one.

    Call it before rclpy starts. With the defaults of Fast DDS most raw images are lost on their way; the profile says
    why.
    """
    os.environ.setdefault('FASTRTPS_DEFAULT_PROFILES_FILE', str(PROFILES))
