"""`instructsam eval BENCHMARK`: lets a model answer a benchmark; `report` and `compare` look at what came out.

With torchrun every process answers its share: `torchrun --nproc-per-node 8 -m instructsam.core.cli eval roborefit ...`
"""

import hashlib
import importlib
import json
from pathlib import Path

from instructsam.core import DEFAULT_MODEL
from instructsam.core.commands.arguments import count, probability
from instructsam.train.evaluation.benchmarks import BENCHMARKS

MODES = ('consistent', 'reference', 'causal', 'autoregressive')
TOOLS = {  # name -> module with add_arguments(parser) and run(args), and its line in --help
    'report': ('instructsam.train.evaluation.reporting.html_report', 'a page of one or more runs, to look into'),
    'compare': ('instructsam.train.evaluation.figures.compare', 'two runs of one benchmark, sample by sample'),
}
SOME_FAILED = 3  # exit code


def add_arguments(parser):
    actions = parser.add_subparsers(dest='benchmark', metavar='BENCHMARK', required=True)
    for name, benchmark in BENCHMARKS.items():
        subparser = _action(actions, name, benchmark.summary)
        subparser.epilog = (
            f'Exit code {SOME_FAILED} where samples failed: they are named, and have no part in the figures. The same '
            'command goes on where it was stopped.'
        )
        if name == 'tabletop':
            importlib.import_module('instructsam.train.evaluation.tabletop').add_arguments(subparser)
        else:
            _add_data_arguments(subparser, benchmark)
        subparser.add_argument('--limit', type=count, metavar='N', help='only the first N samples')
        _add_model_arguments(subparser, benchmark)
    for name, (module, summary) in TOOLS.items():
        importlib.import_module(module).add_arguments(_action(actions, name, summary))


def _action(actions, name, summary):
    return actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + '.')


def _add_data_arguments(parser, benchmark):
    parser.add_argument(
        '--data', type=Path, metavar='DIR', help="the data set's folder, in its original or the authors' layout"
    )
    parser.add_argument(
        '--split', default=benchmark.splits[0], help=f'{", ".join(benchmark.splits)} (default: %(default)s)'
    )
    parser.add_argument('--images', type=Path, metavar='DIR', help='folder of the images, where they are elsewhere')
    parser.add_argument('--split-by', choices=('unc', 'google', 'umd'), help='of RefCOCO, where a folder holds several')


def _add_model_arguments(parser, benchmark):
    def option(name, description, default=None, **kwargs):
        shown = '' if default is None else ' (default: %(default)s)'
        parser.add_argument(name, default=default, help=description + shown, **kwargs)

    option('--model', 'built-in model, folder or hub id', DEFAULT_MODEL)
    option(
        '--mode',
        "consistent: as trained; reference: bit-faithful to the authors' inference; causal, "
        'autoregressive: for models that were trained so, see `instructsam train ablate`',
        'consistent',
        choices=MODES,
    )
    option('--device', 'auto, cpu, cuda, cuda:1, ...; auto: a GPU for each process of a machine', 'auto')
    option('--dtype', 'precision of the weights', 'auto', choices=('auto', 'float32', 'bfloat16', 'float16'))
    option('--threads', 'CPU threads; the last bits of the figures depend on it', 1, type=count, metavar='N')
    option('--threshold', 'instances that score above it are the answer', benchmark.threshold, type=probability)
    option(
        '--lowest',
        'what scores above it takes part in AP (default: '
        f'{"the threshold" if benchmark.lowest is None else benchmark.lowest})',
        type=probability,
    )
    option('--empty', 'IoU of nothing found where nothing is', benchmark.empty, type=int, choices=(0, 1))
    option('--prompt', 'template in the place of the benchmark\'s own, e.g. "find {text}"')
    parser.add_argument(
        '--duplicates',
        choices=('keep', 'suppress'),
        default='suppress' if benchmark.suppress_duplicates else 'keep',
        help='masks that overlap by more than 0.8 IoU (default: %(default)s)',
    )
    option('--max-new-tokens', 'limit of an answer', 256, type=count, metavar='N')
    option(
        '--results',
        'folder to keep them in (default: runs/eval/..., named after benchmark, model and settings)',
        type=Path,
        metavar='DIR',
    )
    option('--json', 'write the figures as JSON; - is stdout (the table then goes to stderr)', metavar='FILE')


def run(args):
    """Returns exit code 0, or SOME_FAILED. Raises InstructSAMError."""
    if args.benchmark in TOOLS:
        return importlib.import_module(TOOLS[args.benchmark][0]).run(args)
    from instructsam.core import builtin
    from instructsam.core.image_file import check_path
    from instructsam.train.evaluation.running.run_folder import read_run
    from instructsam.train.evaluation.running.runner import Process, answer
    from instructsam.train.evaluation.running.sources import open_source

    benchmark = BENCHMARKS[args.benchmark]
    asking = asking_of(benchmark, args)
    if args.json not in (None, '-'):
        check_path(args.json)
    model_folder = builtin.folder(args.model)
    source = open_source(args.benchmark, args)
    header = header_of(args, asking, source, model_folder)
    folder = args.results or Path('runs/eval') / _name(args, header)
    process = Process.of_environment()

    from instructsam.train.evaluation.running.progress_bar import watch

    answer(
        lambda: load_engine(args, process),
        source,
        asking,
        folder,
        header,
        process,
        track=watch(f'{args.benchmark} {args.split}', asking.threshold, args.empty),
    )
    return 0 if process.rank else report(args, read_run(folder, header), benchmark)


def asking_of(benchmark, args):
    """The asking.Asking of the command line. Raises InstructSAMError: a prompt without a place for the text."""
    from instructsam.core.errors import InstructSAMError
    from instructsam.train.evaluation.running.prompting import Asking

    if args.prompt is not None and '{text}' not in args.prompt and '{lowered}' not in args.prompt:
        raise InstructSAMError(f'--prompt {args.prompt!r} has no place for the text: put {{text}} into it')
    lowest = args.lowest if args.lowest is not None else benchmark.lowest
    return Asking(
        threshold=args.threshold,
        lowest=args.threshold if lowest is None else lowest,
        prompts=benchmark.prompts if args.prompt is None else dict.fromkeys(benchmark.prompts, args.prompt),
        suppress_duplicates=args.duplicates == 'suppress',
        max_new_tokens=args.max_new_tokens,
        phrase=getattr(args, 'phrase', 'generated'),
        own_queries=getattr(args, 'own_queries', False),
    )


def header_of(args, asking, source, model_folder):
    """What must be the same for a run to go on."""
    from dataclasses import asdict

    import torch

    import instructsam.core
    import instructsam.train
    from instructsam.core.version import version
    from instructsam.train.evaluation.running.run_folder import fingerprint

    device = args.device if args.device != 'auto' else 'cuda' if torch.cuda.is_available() else 'cpu'
    code = [
        file
        for package in (instructsam.core, instructsam.train)
        for file in Path(package.__file__).parent.rglob('*.py')
    ]
    model = [file for file in Path(model_folder).rglob('*') if file.suffix in ('.safetensors', '.json', '.jinja')]
    return {
        'benchmark': args.benchmark,
        'split': args.split,
        **source.identity(),
        'model': args.model,
        'model_hash': fingerprint(sorted(model)),
        'mode': args.mode,
        **asdict(asking),
        'empty': args.empty,
        'device': device.partition(':')[0],
        'dtype': args.dtype,
        'threads': args.threads,
        'code': f'{version()} {fingerprint(sorted(code))}',
    }


def _name(args, header):
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:8]
    return f'{args.benchmark}_{args.split}_{Path(args.model).name}_{digest}'


def load_engine(args, process):
    """The engine that the command line asks for; on the GPU of this process, where there are several."""
    import torch

    from instructsam.core import InstructSAM

    torch.set_num_threads(args.threads)
    device = args.device
    if device == 'auto' and torch.cuda.is_available():
        device = f'cuda:{process.local_rank % torch.cuda.device_count()}'
    options = {'device': device, 'dtype': args.dtype}
    if args.mode == 'autoregressive':
        from instructsam.train.engines.autoregressive import load_engine

        return load_engine(args.model, args.mode, **options)
    return InstructSAM.from_pretrained(args.model, mode=args.mode, **options)


def report(args, found, benchmark):
    """Prints and writes the figures of a run_folder.Run. Returns the exit code. Raises InstructSAMError: of nothing."""
    from instructsam.core import builtin
    from instructsam.core.commands.document import write_json
    from instructsam.core.errors import InstructSAMError
    from instructsam.train.evaluation.figures.summary import summarise
    from instructsam.train.evaluation.reporting.console_table import print_table

    if not found.outcomes:
        raise InstructSAMError('there was nothing to ask: no sample of this kind. Ask for more, or for other kinds')
    document = {
        **found.header,
        'run': str(found.folder),
        'warning': builtin.warning(args.model),
        **summarise(found.outcomes, args.threshold, args.empty),
    }
    if args.json is not None:
        write_json(args.json, document)
    print_table(f'{args.model} on {args.benchmark} {args.split}', document, benchmark, to_stderr=args.json == '-')
    return SOME_FAILED if document['failed']['queries'] else 0
