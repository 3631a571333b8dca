"""`instructsam bag annotate`: answers instructions on every image of a bag and writes a copy with the results."""

import argparse

from instructsam.core.commands.arguments import count, probability, seconds, text
from instructsam.core.commands.options import add_keep_duplicates, add_max_megapixels, add_model_options, option
from instructsam.core.errors import InstructSAMError
from instructsam_ros.bag.names import DEFAULT_NAME, TIMELINE_EXAMPLE
from instructsam_ros.bag.storage.limits import add_limits
from instructsam_ros.pipeline.settings import ANSWERS, GENERATE, RECTIFIED, Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the bags, the instructions, the topics and the options of the model."""
    parser.epilog = (
        'The same command resumes a run that was interrupted: finished results are kept in OUT.journal until OUT is '
        'complete. Of a folder with bags, those that are finished are skipped, and those that failed are tried again.'
    )
    parser.add_argument(
        'input', metavar='IN', help='a bag: its folder, .mcap or .db3 file, also .zstd; or a folder with bags'
    )
    parser.add_argument(
        'output',
        metavar='OUT',
        help='the bag to write, a folder that does not exist yet; for a folder with bags, the folder of the new ones',
    )
    instructions = parser.add_mutually_exclusive_group()
    instructions.add_argument('--instruction', type=text, help='what to look for in the whole bag')
    instructions.add_argument(
        '--instructions',
        metavar='FILE',
        help=f'a YAML list of instructions and the times at which they start, such as {TIMELINE_EXAMPLE}; seconds from '
        'the first message',
    )
    instructions.add_argument(
        '--instruction-topic',
        metavar='TOPIC',
        help='a recorded std_msgs/String (default, without the other two: `instruction`)',
    )
    option(parser, '--topic', 'topic of the images (default: the only topic of colour images)', metavar='TOPIC')
    option(
        parser,
        '--depth',
        'topic of depth aligned to the images, raw or compressed (default: found by its name, such as '
        'aligned_depth_to_color; off: none)',
        metavar='TOPIC',
    )
    option(parser, '--camera-info', 'topic of their intrinsics (default: beside the images)', metavar='TOPIC')
    option(parser, '--name', 'prefix of the topics of results', DEFAULT_NAME, metavar='NAME')
    parser.add_argument('--label-images', action='store_true', help='write NAME/label_image as well')
    add_model_options(parser)
    option(
        parser,
        '--answer',
        'generate: the language model writes its answer; instruction: the instruction itself is the answer',
        GENERATE,
        choices=ANSWERS,
    )
    option(parser, '--threshold', 'lowest score, 0 to 1', Settings.score_threshold, type=probability)
    option(parser, '--max-new-tokens', 'limit of an answer', Settings.max_new_tokens, type=count, metavar='N')
    option(
        parser,
        '--depth-tolerance',
        'largest difference between the stamps of an image and its depth (default: they are equal)',
        type=seconds,
        metavar='S',
    )
    option(
        parser,
        '--rectified',
        'whether the images are rectified, so that camera_info.p describes them; auto: if their topic is named so',
        Settings.rectified,
        choices=RECTIFIED,
    )
    option(
        parser,
        '--frame-tolerance',
        "pairs of frame_ids that count as the same camera's (default: those of image, depth and camera info are equal)",
        type=frame_tolerance,
        metavar='A=B[,C=D]',
    )
    add_keep_duplicates(parser)
    add_max_megapixels(parser)
    add_limits(parser)
    ray = parser.add_argument_group(
        'Ray (extra engine-ray)', 'The bags of a folder on several GPUs or machines; RAY_ADDRESS names a cluster.'
    )
    ray.add_argument('--ray', action='store_true', help='a bag per task, a model per process of Ray')
    option(
        ray, '--ray-actors', 'processes (default: as many as fit on the GPUs; without GPUs 1)', type=count, metavar='N'
    )
    option(ray, '--ray-gpus', 'GPUs per process, such as 0.5 (default: 1, without GPUs 0)', type=share, metavar='G')


def share(value: str) -> float:
    """Convert to a number of GPUs: a part of one, or a whole number."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 64 or (number > 1 and number % 1):
        raise argparse.ArgumentTypeError(f'expected a number of GPUs, up to 1 or whole, got {value!a}')
    return number


def frame_tolerance(value: str) -> str:
    """Accept what check_frames takes."""
    from instructsam.core.errors import GeometryError
    from instructsam.core.spatial.calibration import frame_pairs

    try:
        frame_pairs(value)
    except GeometryError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


def run(args: argparse.Namespace) -> int:
    """Annotate the bag, or the bags in a folder, and return the exit code."""
    from instructsam_ros.bag.annotate import annotate
    from instructsam_ros.bag.folders.annotate import annotate_folder
    from instructsam_ros.bag.folders.contents import list_bags

    bags = list_bags(args.input)
    if bags is not None:
        return annotate_folder(args, bags)
    for name in ('ray', 'ray_actors', 'ray_gpus'):
        if getattr(args, name) not in (None, False):
            raise InstructSAMError(
                f'--{name.replace("_", "-")} is for the bags in a folder, and {args.input} is none that holds bags'
            )
    return annotate(args)[0]
