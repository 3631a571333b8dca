"""`instructsam segment`: one image file, one instruction; a table, and on demand JSON and an overlay."""

import sys

from instructsam.core import DEFAULT_MODEL
from instructsam.core.commands.arguments import count, probability, seconds, text
from instructsam.core.commands.document import write_json


def add_arguments(parser):
    parser.epilog = (
        'Pictures of any kind are turned upright (EXIF) and taken as 8-bit RGB: of 16 bits the upper 8, of an '
        'animation the first frame, transparency is dropped. Exit code: 0, also where nothing matches; 2 for input '
        'that cannot be used.'
    )

    def option(name, description, default=None, **kwargs):
        shown = '' if default is None else ' (default: %(default)s)'
        parser.add_argument(name, default=default, help=description + shown, **kwargs)

    parser.add_argument('image', metavar='IMAGE', help='a picture file')
    parser.add_argument('instruction', metavar='INSTRUCTION', type=text, help="e.g. 'the mugs left of the kettle'")
    option('--model', 'built-in model, folder or hub id', DEFAULT_MODEL)
    option(
        '--mode',
        "consistent: as trained; reference: bit-faithful to the authors' inference",
        'consistent',
        choices=('consistent', 'reference'),
    )
    option('--threshold', 'lowest score, 0 to 1', 0.5, type=probability)
    option('--out', 'write the overlay to this picture file', metavar='FILE')
    option('--json', 'write the result as JSON; - is stdout (the table then goes to stderr)', metavar='FILE')
    option('--device', 'auto, cpu, cuda, cuda:1, ...', 'auto')
    option('--dtype', 'precision of the weights', 'auto', choices=('auto', 'float32', 'bfloat16', 'float16'))
    option('--max-new-tokens', 'limit of the answer', 256, type=count, metavar='N')
    option('--time-budget', 'seconds after which the answer is cut off', type=seconds, metavar='S')
    option(
        '--depth',
        'depth image, aligned to the picture (16-bit mm, or .npy or TIFF of m): the table and the JSON '
        'then say where objects are and how large; wants --camera',
        metavar='FILE',
    )
    parser.add_argument('--camera', type=float, nargs=4, metavar=('FX', 'FY', 'CX', 'CY'), help='its intrinsics, px')
    parser.add_argument('--keep-duplicates', action='store_true', help='keep masks that overlap by more than 0.8 IoU')
    forced = parser.add_mutually_exclusive_group()
    forced.add_argument('--phrase', type=text, action='append', help='skip decoding, look for this phrase; repeatable')
    forced.add_argument('--answer', type=text, help="skip decoding, take this answer in the model's notation")


def run(args):
    """Returns exit code 0 where the model has answered, also with 'no target'. Raises InstructSAMError."""
    # imported here, so that --help does not wait for them; torch comes last, after the cheap checks
    from instructsam.core.errors import InstructSAMError
    from instructsam.core.image_file import check_image_path, check_path, read_depth, read_image, write_image

    if (args.depth is None) != (args.camera is None):
        raise InstructSAMError('--depth and --camera go together: one says how far away, the other in which direction')
    image = read_image(args.image)
    depth = camera = None
    if args.depth is not None:
        from instructsam.core.spatial.geometry import CameraModel, check_depth, locate

        fx, fy, cx, cy = args.camera
        depth, camera = read_depth(args.depth), CameraModel(*image.shape[:2], [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        check_depth(depth, camera, image.shape[:2])
    if args.out is not None:
        check_image_path(args.out)
    if args.json not in (None, '-'):
        check_path(args.json)

    from instructsam.core import InstructSAM

    engine = InstructSAM.from_pretrained(args.model, device=args.device, dtype=args.dtype, mode=args.mode)
    answer = engine.answer_for(args.phrase) if args.phrase else args.answer
    result = engine.segment(
        engine.encode(image),
        args.instruction,
        score_threshold=args.threshold,
        answer=answer,
        max_new_tokens=args.max_new_tokens,
        time_budget_s=args.time_budget,
        suppress_duplicates=not args.keep_duplicates,
    )
    if depth is not None:
        result = locate(result, depth, camera)
        for instance in result.instances:
            if instance.geometry_message:
                print(f'{instance.phrase} at {instance.box}: {instance.geometry_message}', file=sys.stderr)
    if args.out is not None:
        from instructsam.core.display.overlay import draw_overlay

        write_image(args.out, draw_overlay(image, result))
    if args.json is not None:
        write_json(args.json, result.to_json())

    from instructsam.core.display.table import print_result

    print_result(result, to_stderr=args.json == '-')
    return 0
