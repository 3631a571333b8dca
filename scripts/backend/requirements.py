"""Run-time requirements of the package. As a program it prints those of a ROS workspace, one per line, for pip."""

from ros_source import NONE, RUN_WHEELS, SOURCED, WHEELS


def requirements(source):
    """Return the pip requirements of an installation with `source`, one of SOURCED, WHEELS and NONE."""
    required = [
        'accelerate',
        'huggingface-hub',
        'jinja2',
        'numpy',
        # Headless, because no window is opened and a robot may lack the X libraries that opencv-python needs. OpenCV
        # 4.12 and later need NumPy 2, with which the messages of an apt ROS, built for NumPy 1, cannot be imported.
        'opencv-python-headless' + ('<4.12' if source == SOURCED else ''),
        'pillow',
        'pycocotools',
        'rich',
        'safetensors',
        'scipy',
        'torch>=2.4',
        'transformers>=5.0,<6',
    ]
    if source != NONE:
        required += ['backports.zstd; python_version < "3.14"', 'lz4', 'pyyaml', 'rosbags']
    if source == WHEELS:
        required += RUN_WHEELS
    return required


if __name__ == '__main__':
    print('\n'.join(requirements(SOURCED)))
