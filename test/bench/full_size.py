"""Measures a model of the published size on this machine: build with random weights, save, load, answer an instruction.

    python test/bench/full_size.py [--folder DIR] [--device cpu] [--dtype float32]

Each phase runs in a separate process, so that its peak memory is measured separately. The weights are random: times and
memory are meaningful, masks are not. The folder is removed afterwards unless --keep is given. Needs about 25 GB of disk
space and 16 GB of memory in float32.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'support'))

FRAME_SIZE = (480, 640)


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def build_and_save(folder, dtype):
    import torch
    from sample_models import published_config, random_model

    from instructsam.core import builtin
    from instructsam.core.model import checkpoint

    start = time.perf_counter()
    model = random_model(published_config(), seed=0, dtype=getattr(torch, dtype))
    built_s, built_gb = time.perf_counter() - start, peak_gb()
    start = time.perf_counter()
    # The small model's tokenizer suffices: its ids are within the large vocabulary, and the weights are random.
    checkpoint.save(model, folder, source=builtin.MODELS['tabletop'])
    small = json.loads((builtin.MODELS['tabletop'] / 'config.json').read_text())
    raw = json.loads((folder / 'config.json').read_text())
    raw.update({key: value for key, value in small.items() if key.endswith(('_token_id', '_token_index'))})
    (folder / 'config.json').write_text(json.dumps(raw))
    preprocessor = json.loads((folder / 'preprocessor_config.json').read_text())
    # The sizes of the published model.
    preprocessor.update(size={'shortest_edge': 65536, 'longest_edge': 16777216}, merge_size=2)
    (folder / 'preprocessor_config.json').write_text(json.dumps(preprocessor))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        'parameters_billion': parameters / 1e9,
        'build_s': built_s,
        'build_peak_gb': built_gb,
        'save_s': time.perf_counter() - start,
        'save_peak_gb': peak_gb(),
    }


def load_and_answer(folder, device, dtype, repeats):
    import numpy as np
    import torch

    from instructsam.core import InstructSAM

    before_gb = peak_gb()
    start = time.perf_counter()
    engine = InstructSAM.from_pretrained(folder, device=device, dtype=dtype)
    load_s, load_gb = time.perf_counter() - start, peak_gb()
    weights_gb = sum(p.nbytes for p in engine.model.parameters()) / 1e9
    image = np.random.default_rng(0).integers(0, 256, (*FRAME_SIZE, 3), dtype=np.uint8)
    instruction = 'the red mug left of the kettle'

    def ask(encoded, **options):
        return engine.segment(encoded, instruction, score_threshold=0, suppress_duplicates=False, **options)

    named = engine.answer_for([instruction])
    fresh, cached = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        encoded = engine.encode(image)
        result = ask(encoded, answer=named)
        fresh.append(time.perf_counter() - start)
        start = time.perf_counter()
        ask(encoded, answer=named)
        cached.append(time.perf_counter() - start)
    ask(encoded, max_new_tokens=2)  # Warm-up: a GPU loads kernels on their first use.
    decoded = ask(encoded, max_new_tokens=8)
    return {
        'weights_gb': weights_gb,
        'imports_gb': before_gb,
        'load_s': load_s,
        'load_peak_gb': load_gb,
        'load_peak_over_weights': load_gb / weights_gb,
        'instances': len(result.instances),
        'timings_ms': result.timings_ms,
        'ms_per_decoded_token': decoded.timings_ms['generation'] / 8,
        'encode_and_segment_s': min(fresh),
        'segment_cached_s': min(cached),
        'cached_over_fresh': min(cached) / min(fresh),
        'answer_peak_gb': peak_gb(),
        **gpu_figures(torch, engine.device),
    }


def gpu_figures(torch, device):
    if device.type != 'cuda':
        return {}
    return {'gpu': torch.cuda.get_device_name(device), 'gpu_peak_gb': torch.cuda.max_memory_allocated(device) / 1e9}


def run_phase(phase, folder, arguments):
    command = [sys.executable, __file__, '--phase', phase, '--folder', str(folder)]
    command += ['--device', arguments.device, '--dtype', arguments.dtype, '--repeats', str(arguments.repeats)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, help='folder of the model (default: a temporary one)')
    parser.add_argument('--device', default='cpu', help='device of the answer: cpu or cuda (default: cpu)')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument(
        '--repeats', type=int, default=2, help='number of fresh and cached runs; the fastest is reported'
    )
    parser.add_argument('--keep', action='store_true', help='keep the model folder for another run')
    parser.add_argument('--phase', choices=('save', 'load'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        if arguments.phase == 'save':
            figures = build_and_save(arguments.folder, arguments.dtype)
        else:
            figures = load_and_answer(arguments.folder, arguments.device, arguments.dtype, arguments.repeats)
        print(json.dumps(figures))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix='instructsam_full_size_'))
    try:
        figures = {} if (folder / 'model.safetensors').exists() else run_phase('save', folder, arguments)
        print(json.dumps(figures, indent=1), flush=True)
        print(json.dumps(run_phase('load', folder, arguments), indent=1))
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)


if __name__ == '__main__':
    main()
