"""`instructsam eval BENCHMARK`: loads a model, lets the benchmark measure it, and reports.

A benchmark is a module with
    add_arguments(parser)   its own options
    check(args)             raises InstructSAMError for what is missing, before a model is loaded
    measure(engine, args)   the figures: {'all': {name: value}, 'by_kind': {kind: {name: value}}, ...}
"""

import importlib

from instructsam.core import DEFAULT_MODEL
from instructsam.core.commands.arguments import count, probability

BENCHMARKS = {  # name -> module, and its line in --help
    'tabletop': ('instructsam.train.evaluation.tabletop', 'newly drawn tables, and instructions about them'),
}


def add_arguments(parser):
    benchmarks = parser.add_subparsers(dest='benchmark', metavar='BENCHMARK', required=True)
    for name, (module, summary) in BENCHMARKS.items():
        subparser = benchmarks.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + '.')
        importlib.import_module(module).add_arguments(subparser)
        _add_model_arguments(subparser)


def _add_model_arguments(parser):
    def option(name, description, default=None, **kwargs):
        shown = '' if default is None else ' (default: %(default)s)'
        parser.add_argument(name, default=default, help=description + shown, **kwargs)

    option('--model', 'built-in model, folder or hub id', DEFAULT_MODEL)
    option('--mode', "consistent: as trained; reference: bit-faithful to the authors' inference; causal, "
           'autoregressive: for models that were trained so, see `instructsam train ablate`', 'consistent',
           choices=('consistent', 'reference', 'causal', 'autoregressive'))  # fmt: skip
    option('--device', 'auto, cpu, cuda, cuda:1, ...', 'auto')
    option('--dtype', 'precision of the weights', 'auto', choices=('auto', 'float32', 'bfloat16', 'float16'))
    option('--threshold', 'instances above it count, except in AP, which ranks them all', 0.5, type=probability)
    option('--max-new-tokens', 'limit of an answer', 256, type=count, metavar='N')
    option('--json', 'write the figures as JSON; - is stdout (the table then goes to stderr)', metavar='FILE')


def run(args):
    """Returns exit code 0. Raises InstructSAMError."""
    from instructsam.core.commands.document import write_json
    from instructsam.core.image_file import check_path
    from instructsam.train.evaluation.report import print_table

    benchmark = importlib.import_module(BENCHMARKS[args.benchmark][0])
    if args.json not in (None, '-'):
        check_path(args.json)
    benchmark.check(args)

    from instructsam.core import InstructSAM

    options = {'device': args.device, 'dtype': args.dtype}
    if args.mode == 'autoregressive':
        from instructsam.train.ablation.autoregressive import load_engine

        engine = load_engine(args.model, args.mode, **options)
    else:
        engine = InstructSAM.from_pretrained(args.model, mode=args.mode, **options)
    settings = {name: value for name, value in vars(args).items() if name not in ('command', 'json')}
    found = benchmark.measure(engine, args)
    document = {**settings, 'device': str(engine.device), 'warning': engine.warning, **found}
    if args.json is not None:
        write_json(args.json, document)
    title = f'{args.model} on {args.benchmark} {getattr(args, "split", "")}'
    print_table(title, document, to_stderr=args.json == '-')
    return 0
