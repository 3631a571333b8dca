"""Measures building, saving and loading a model of the published size on this machine.

    python test/bench/full_size.py [--divisor 1] [--folder DIR] [--device cpu] [--dtype float32]

Each phase runs in a separate process, so that its peak memory is measured separately. The weights are random. The
folder is removed afterwards unless --keep is given. Needs about 25 GB of disk space and 16 GB of memory in float32.
Times of answers: `instructsam bench --random`. With a divisor, layers are fewer, and widths stay.
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


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def scaled_config(divisor, *, divides_vocabulary=False):
    """Return the published configuration with the built-in model's token ids and 1 / divisor of the layers."""
    from transformers.models.sam3.configuration_sam3 import Sam3Config

    from instructsam.core.benchmark.random_weights import builtin_tokens, published_config
    from instructsam.core.model.config import ModelConfig

    def fewer(layers):
        return max(1, round(layers / divisor))

    # The built-in model's tokenizer suffices: its ids are within the large vocabulary, and the weights are random.
    raw = published_config(builtin_tokens()).raw
    text, vision = raw['text_config'], raw['vision_config']
    if divides_vocabulary:
        text['vocab_size'] //= divisor
    text['num_hidden_layers'] = fewer(text['num_hidden_layers'])
    vision['depth'] = fewer(vision['depth'])
    levels = {index // divisor for index in vision['deepstack_visual_indexes']}
    vision['deepstack_visual_indexes'] = sorted(min(level, vision['depth'] - 1) for level in levels)
    sam3 = Sam3Config().to_dict()
    backbone = sam3['vision_config']['backbone_config']
    backbone['num_hidden_layers'] = layers = fewer(backbone['num_hidden_layers'])
    backbone['global_attn_indexes'] = list(range(7, layers, 8)) or [layers - 1]
    for part in ('detr_encoder_config', 'detr_decoder_config'):
        sam3[part]['num_layers'] = fewer(sam3[part]['num_layers'])
    return ModelConfig.from_dict(raw, Sam3Config(**sam3))


def build_and_save(folder, dtype, divisor):
    import torch

    from instructsam.core import builtin
    from instructsam.core.benchmark.random_weights import random_engine
    from instructsam.core.model import checkpoint

    start = time.perf_counter()
    model = random_engine(scaled_config(divisor), torch.device('cpu'), dtype).model
    built_s, built_gb = time.perf_counter() - start, peak_gb()
    start = time.perf_counter()
    checkpoint.save(model, folder, source=builtin.MODELS['tabletop'])
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


def load(folder, device, dtype):
    from instructsam.core import InstructSAM

    before_gb = peak_gb()
    start = time.perf_counter()
    engine = InstructSAM.from_pretrained(folder, device=device, dtype=dtype)
    load_s, load_gb = time.perf_counter() - start, peak_gb()
    weights_gb = sum(p.nbytes for p in engine.model.parameters()) / 1e9
    return {
        'weights_gb': weights_gb,
        'imports_gb': before_gb,
        'load_s': load_s,
        'load_peak_gb': load_gb,
        'load_peak_over_weights': load_gb / weights_gb,
    }


def run_phase(phase, folder, arguments):
    command = [sys.executable, __file__, '--phase', phase, '--folder', str(folder)]
    command += ['--device', arguments.device, '--dtype', arguments.dtype, '--divisor', str(arguments.divisor)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, help='folder of the model (default: a temporary one)')
    parser.add_argument('--divisor', type=int, default=1, help='of the layers (default: 1, the published size)')
    parser.add_argument('--device', default='cpu', help='device of the loaded model: cpu or cuda (default: cpu)')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    parser.add_argument('--keep', action='store_true', help='keep the model folder for another run')
    parser.add_argument('--phase', choices=('save', 'load'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        if arguments.phase == 'save':
            figures = build_and_save(arguments.folder, arguments.dtype, arguments.divisor)
        else:
            figures = load(arguments.folder, arguments.device, arguments.dtype)
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
