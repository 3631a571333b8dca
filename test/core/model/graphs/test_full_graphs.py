"""Each stage is one graph: torch.compile captures it without a break, and it runs a bounded number of operations.

The counts can only go down: lower a limit when a change saves operations.
"""

from collections import Counter
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from instructsam.core.model.graphs.capture import record_calls
from instructsam.core.model.graphs.stages import Stages, StaticStages, _flattened
from instructsam.core.model.graphs.static_sequence import StaticLanguage
from instructsam.core.model.sequence import plan_prefix

WAITS = ('_local_scalar_dense', 'nonzero', 'is_nonzero', 'item', 'masked_select', 'repeat_interleave', 'unique')
"""Operations for which the host waits for a GPU, and that have shapes which depend on values."""

HOST_TENSORS = ('lift_fresh', 'lift', '_pin_memory')
"""Operations on tensors that come from the host's numbers."""


class Operations(TorchDispatchMode):
    """Counts the operations that are dispatched."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == 'index' and any(each is not None and each.dtype == torch.bool for each in args[1]):
            name = 'nonzero'
        self.counts[name] += 1
        return function(*args, **(kwargs or {}))

    def of(self, names):
        return sum(self.counts[name] for name in names)


def count(function):
    """Return (operations, waits, host tensors) of a call."""
    function()  # tables and plans are computed once
    with Operations() as operations:
        function()
    return operations.counts.total(), operations.of(WAITS), operations.of(HOST_TENSORS)


@pytest.fixture(scope='module')
def static(engine):
    stages = StaticStages(engine.model, engine.mode, record_calls)
    stages._language = StaticLanguage(engine.model, engine.mode, 256, record_calls, lambda function: function)
    return stages


@pytest.fixture(scope='module')
def inputs(engine):
    return engine.example_inputs()


@pytest.fixture(scope='module')
def features(engine, inputs):
    with torch.inference_mode():
        return Stages(engine.model, engine.mode).image_features(inputs)


def functions(engine, static, inputs, features):
    """Return the static stages by name, with inputs."""
    model, language = engine.model, static._language
    one = torch.ones(1, dtype=torch.int64)
    grid = inputs.grids[0]
    plan, prefix = model.vision_tower.plan(*grid[1:]), plan_prefix(model, engine.prompter, engine.mode, grid)
    embeddings, deepstack = model.vision_tower(inputs.patches, plan)
    hidden = torch.ones(2, model.config.num_queries, model.config.text.hidden_size)
    ids, mask = model.pad_phrases([[5], [6, 7]])

    return {
        "SAM3's encoder": (static._encode_sam, (inputs.pixels,)),
        "Qwen's vision tower": (partial(static._run_tower, plan), (inputs.patches,)),
        'prefill': (partial(static._prefill, prefix), (embeddings, *deepstack)),
        'decode step': (language.decode_step, (one, one, one)),
        'query block': (language.query_block, (one, one)),
        'detector': (static._detect_flat, (*_flattened(features), hidden, ids, mask)),
    }


@pytest.mark.parametrize(
    'name', ["SAM3's encoder", "Qwen's vision tower", 'prefill', 'decode step', 'query block', 'detector']
)
def test_a_stage_is_one_graph(engine, static, inputs, features, name):
    with torch.no_grad():
        function, arguments = functions(engine, static, inputs, features)[name]
        compiled = torch.compile(function, fullgraph=True, dynamic=False, backend='aot_eager')
        got, expected = (torch.utils._pytree.tree_leaves(each(*arguments)) for each in (compiled, function))
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        assert count(lambda: function(*arguments))[1:] == (0, 0)


LIMITS = {  # operations, waits, host tensors
    "SAM3's encoder": (148, 0, 0),
    "Qwen's vision tower": (104, 0, 0),
    'prefill': (73, 0, 0),
    'token': (73, 0, 0),
    'pick': (8, 0, 0),
    'text': (81, 0, 1),
    'phrase': (90, 0, 2),
    'detector': (431, 0, 2),
}
"""With the tiny model of the tests."""


@torch.inference_mode()
def test_operations_of_the_plain_stages(engine, inputs):
    stages = Stages(engine.model, engine.mode)
    features, visual = stages.image_features(inputs), stages.visual_features(inputs)
    prefix = stages.prefix(visual, inputs.grids[0], engine.prompter)
    sequence, other = stages.sequence(prefix), stages.sequence(prefix)
    output, phrase = sequence.add_text([5, 6]), engine.answer_for(['cup'])
    other.add_answer(phrase)
    measured = {
        "SAM3's encoder": count(lambda: stages.image_features(inputs)),
        "Qwen's vision tower": count(lambda: stages.visual_features(inputs)),
        'prefill': count(lambda: stages.prefix(visual, inputs.grids[0], engine.prompter)),
        'token': count(lambda: sequence.accept(5)),
        'pick': count(lambda: sequence.pick(output)),
        'text': count(lambda: sequence.add_text([5, 6])),
        'phrase': count(lambda: sequence.add_answer(phrase)),
        'detector': count(lambda: stages.detect(features, other.groups)),
    }
    above = {
        name: (found, LIMITS[name])
        for name, found in measured.items()
        if any(one > limit for one, limit in zip(found, LIMITS[name], strict=True))
    }
    assert not above


def test_the_host_reads_the_device_once_per_token_phrase_call_and_instance(engine, image, monkeypatch):
    """Reads are counted at the methods of tensors: a GPU would make the host wait in each."""
    reads = Counter()
    for name in ('tolist', 'item', 'cpu', 'numpy', '__bool__', '__int__', '__float__'):
        original = getattr(torch.Tensor, name)

        def counted(tensor, *arguments, original=original, name=name, **options):
            reads[name] += 1
            return original(tensor, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)
    encoded = engine.encode(image)
    assert not reads
    options = {'score_threshold': 1.0, 'suppress_duplicates': False}
    engine.segment(encoded, 'cup', answer=engine.answer_for(['cup']), **options)
    assert reads == {'tolist': 3}  # whether scores and masks are finite, and the scores
    reads.clear()
    tokens = 5
    monkeypatch.setattr(engine, 'stop_ids', frozenset())
    monkeypatch.setattr(engine, '_detect', lambda *arguments: [])
    engine.segment(encoded, 'cup', max_new_tokens=tokens, **options)
    assert reads == {'tolist': tokens}
