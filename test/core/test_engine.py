"""The engine on a tiny checkpoint with random weights: caching, threads, budgets, duplicates, invalid input."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from instructsam.core import CancelledError, ImageError, InstructionError, InstructSAM, ModelError
from instructsam.core.engine import mask_nms
from instructsam.core.files.image_file import read_image
from instructsam.core.result import STEPS, Instance
from instructsam.core.rle import Rle

ALL = {'score_threshold': 0, 'suppress_duplicates': False}
TWO = '<|object_ref_start|>red cup<|object_ref_end|>, <|object_ref_start|>the box<|object_ref_end|><|im_end|>'


def content(result):
    """Return the JSON of a result without its timings."""
    return {key: value for key, value in result.to_json().items() if key != 'timings_ms'}


@pytest.fixture(params=['consistent', 'reference'])
def either(request, load_engine):
    return load_engine(request.param)


def test_an_encoded_image_can_be_reused(either, image):
    """Results are equal bit for bit, in any order of calls."""
    instructions = ['red cup', 'the box on the left', 'two blue bottles', 'red cup']
    fresh = [content(either.segment(either.encode(image), text, answer=TWO, **ALL)) for text in instructions]
    encoded = either.encode(image)
    tensors = [
        encoded.features.attended,
        *(level.convolved for level in encoded.features.levels),
        *encoded.prefix.cache.rows(),
    ]
    before = [tensor.clone() for tensor in tensors]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 2, 1, 0]):
        for index in order:
            assert content(either.segment(encoded, instructions[index], answer=TWO, **ALL)) == fresh[index]
    assert all(torch.equal(old, new) for old, new in zip(before, tensors, strict=True))
    assert fresh[0]['instances'] != fresh[1]['instances']  # the comparison would not notice an ignored instruction


@pytest.mark.parametrize('runs_ahead', [False, True])
def test_decoding_and_a_forced_answer_agree(either, image, monkeypatch, runs_ahead):
    """An answer gives the same result decoded token by token, also one step ahead of the host, as forced in one pass.

    Random weights cannot write an answer, so the logits are scripted; everything else is real.
    """
    ids = either.prompter.answer_ids(TWO)
    encoded = either.encode(image)
    forced = either.segment(encoded, 'red cup', answer=TWO, **ALL)
    script = iter(ids)
    vocabulary = either.model.config.qwen.text_config.vocab_size
    one_hot = torch.eye(vocabulary)
    monkeypatch.setattr(either.model, 'token_logits', lambda hidden: one_hot[next(script)][None])
    monkeypatch.setattr(either, 'runs_ahead', runs_ahead)
    decoded = either.segment(encoded, 'red cup', **ALL)
    assert decoded.finish_reason == 'stop'
    assert forced.finish_reason == 'forced'
    assert decoded.answer == forced.answer == 'red cup, the box'
    assert next(script, None) is None
    for one, other in zip(sorted(decoded.instances, key=slot_of), sorted(forced.instances, key=slot_of), strict=True):
        assert slot_of(one) == slot_of(other)
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.mask.iou([other.mask])[0] > 0.99


def slot_of(instance):
    return instance.group, instance.slot


def test_threads_do_not_disturb_each_other(engine, image):
    images = [image, np.ascontiguousarray(image[::-1]), image[:90, :70]]
    texts = ['red cup', 'the box', 'a bottle']
    pairs = list(zip(images, texts, strict=True))
    expected = [content(engine.segment(engine.encode(each), t, answer=TWO, **ALL)) for each, t in pairs]
    got = [[] for _ in images]
    barrier = threading.Barrier(len(images))

    def work(index):
        barrier.wait()
        for _ in range(5):
            got[index].append(content(engine.segment(engine.encode(images[index]), texts[index], answer=TWO, **ALL)))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [[result] * 5 for result in expected]


def test_several_phrases_are_several_groups(engine, image):
    """More phrases than fit into one detector call give the same result as each phrase alone after the same text."""
    encoded = engine.encode(image)
    names = ['cup', 'box', 'bottle', 'plate', 'spoon', 'bowl']
    together = engine.segment(encoded, 'everything', answer=engine.answer_for(names), **ALL)
    assert together.phrases == tuple(names)
    assert together.answer == ', '.join(names)
    first = engine.segment(encoded, 'everything', answer=engine.answer_for(names[:1]), **ALL)
    for one, other in zip(first.instances, [i for i in together.instances if i.group == 0], strict=True):
        assert one.slot == other.slot
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.mask.iou([other.mask])[0] > 0.99


def test_instances_are_sorted_and_above_the_threshold(engine, image):
    encoded = engine.encode(image)
    everything = engine.segment(encoded, 'red cup', answer=TWO, **ALL).instances
    scores = [instance.score for instance in everything]
    assert scores == sorted(scores, reverse=True)
    threshold = scores[len(scores) // 2]
    some = engine.segment(
        encoded, 'red cup', answer=TWO, score_threshold=threshold, suppress_duplicates=False
    ).instances
    assert [i.score for i in some] == [score for score in scores if score > threshold]
    none = engine.segment(encoded, 'red cup', answer=TWO, score_threshold=1)
    assert none.status == 'no_target'
    assert none.instances == ()
    assert none.phrases == ('red cup', 'the box')


def test_an_answer_without_a_phrase_is_no_target(engine, image):
    result = engine.segment(engine.encode(image), 'the car', answer='There is no such object.<|im_end|>', **ALL)
    assert (result.status, result.answer, result.phrases) == ('no_target', 'There is no such object.', ())


@pytest.mark.parametrize(
    'answer',
    [
        '<|object_ref_start|><|object_ref_end|>',
        '<|object_ref_end|>',
        '<|object_ref_start|>cup',
        '[SEG][SEG]cup',
    ],
)
def test_answers_that_name_nothing(either, image, answer):
    """Empty, stray and unfinished phrases give no group and no error."""
    assert either.segment(either.encode(image), 'x', answer=answer, **ALL).status == 'no_target'


def test_the_published_notation_of_the_query_block_is_taken(engine, image):
    k = engine.model.config.num_queries
    with_block = f'<|object_ref_start|>red cup<|object_ref_end|><|mask_start|>{"[SEG]" * k}<|mask_end|>'
    without = '<|object_ref_start|>red cup<|object_ref_end|>'
    encoded = engine.encode(image)
    one, other = (content(engine.segment(encoded, 'x', answer=a, **ALL)) for a in (with_block, without))
    assert one == other
    assert one['instances']


def test_nms_keeps_the_best_of_near_duplicates():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    nearly, apart = mask.copy(), np.zeros((20, 20), bool)
    nearly[5, 5:15] = False  # IoU 0.9
    apart[:8, :8] = True
    instances = [
        Instance(Rle.encode(m), score, 'x', slot)
        for slot, (m, score) in enumerate([(nearly, 0.9), (mask, 0.8), (apart, 0.7), (apart, 0.6)])
    ]
    assert [instance.slot for instance in mask_nms(instances)] == [0, 2]


def test_budgets_end_the_decoding(engine, image):
    encoded = engine.encode(image)
    tokens = engine.segment(encoded, 'red cup', max_new_tokens=3)
    assert tokens.finish_reason in ('token_budget', 'stop')
    time = engine.segment(encoded, 'red cup', time_budget_s=0)
    assert (time.finish_reason, time.phrases, time.status) == ('time_budget', (), 'error')
    assert engine.segment(encoded, 'red cup', answer=TWO).finish_reason == 'forced'


def test_cancelling_stops_at_the_next_step(engine, image):
    with pytest.raises(CancelledError):
        engine.encode(image, cancelled=lambda: True)
    encoded = engine.encode(image)
    asked = []

    def after_four():
        asked.append(1)
        return len(asked) > 4

    with pytest.raises(CancelledError):
        engine.segment(encoded, 'red cup', max_new_tokens=500, cancelled=after_four)
    assert len(asked) == 5


def test_every_step_is_timed(engine, image):
    result = engine.segment(engine.encode(image), 'red cup', answer=TWO, **ALL)
    assert tuple(sorted(result.timings_ms)) == tuple(sorted(STEPS))
    assert all(ms > 0 for ms in result.timings_ms.values())


@pytest.mark.parametrize('size', [(1, 1), (3, 500), (64, 64), (1000, 30)])
def test_unusual_sizes(engine, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = engine.segment(engine.encode(image), 'red cup', answer=TWO, **ALL)
    assert (result.height, result.width) == size
    assert all(instance.mask.decode().shape == size for instance in result.instances)


def test_an_8k_image(engine):
    image = np.zeros((4320, 7680, 3), np.uint8)
    image[1000:3000, 2000:5000] = 200
    result = engine.segment(engine.encode(image), 'red cup', answer=engine.answer_for(['red cup']), **ALL)
    assert (result.height, result.width) == (4320, 7680)


def test_memory_layouts_of_images(engine, image):
    """Read-only, flipped, torch and padded images with the same pixels give the same result."""
    expected = content(engine.segment(engine.encode(image), 'red cup', answer=TWO, **ALL))
    read_only = image.copy()
    read_only.flags.writeable = False
    padded = np.zeros((image.shape[0], image.shape[1] + 7, 3), np.uint8)
    padded[:, :-7] = image
    flipped_twice = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    for same in (read_only, padded[:, :-7], flipped_twice, torch.from_numpy(image.copy())):
        assert content(engine.segment(engine.encode(same), 'red cup', answer=TWO, **ALL)) == expected


@pytest.mark.parametrize(
    ('image', 'says'),
    [
        (np.zeros((4, 4), np.uint8), r'\[H, W, 3\]'),
        (np.zeros((4, 4, 4), np.uint8), r'\[4, 4, 4\]'),
        (np.zeros((4, 4, 3), np.float32), 'float32'),
        (np.zeros((4, 4, 3), np.uint16), 'uint16'),
        (np.zeros((0, 4, 3), np.uint8), 'empty'),
        (np.zeros((2, 900, 3), np.uint8), 'factor'),
        ('image.png', 'str'),
        (None, 'NoneType'),
    ],
)
def test_unusable_images(engine, image, says):
    with pytest.raises(ImageError, match=says):
        engine.encode(image)


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('', 'empty'),
        ('  \n ', 'empty'),
        ('x' * 100_000, '100,000'),
        ('the\x00cup', r'U\+0000'),
        ('\x1b[31mcup', r'U\+001B'),
        ('cup \udcff', 'UTF-8'),
        (7, 'int'),
        (None, 'NoneType'),
    ],
)
def test_unusable_instructions(engine, image, text, says):
    encoded = engine.encode(image)
    with pytest.raises(InstructionError, match=says):
        engine.segment(encoded, text)
    with pytest.raises(InstructionError, match=says):
        engine.answer_for([text])


def test_other_invalid_arguments(engine, load_engine, image):
    encoded = engine.encode(image)
    with pytest.raises(ImageError, match='another engine'):
        load_engine('reference').segment(encoded, 'cup')
    with pytest.raises(ImageError, match='encode'):
        engine.segment(image, 'cup')
    with pytest.raises(ValueError, match='score_threshold'):
        engine.segment(encoded, 'cup', score_threshold=1.5)
    with pytest.raises(InstructionError, match='vocabulary'):
        engine.segment(encoded, 'cup', answer=[10**9])
    with pytest.raises(InstructionError, match='tokens'):
        engine.segment(encoded, 'cup', answer='')


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({'mode': 'fast'}, 'consistent, reference'),
        ({'dtype': 'int4'}, 'bfloat16'),
        ({'device': 'tpu9'}, 'tpu9'),
        ({'device': 'cuda:99'}, 'cuda:99'),
    ],
)
def test_unknown_options(checkpoint, options, says):
    with pytest.raises(ModelError, match=says):
        InstructSAM.from_pretrained(checkpoint, **options)


def test_the_built_in_model_says_what_it_has_seen():
    engine = InstructSAM.from_pretrained('tabletop', device='cpu')
    image = read_image(Path(__file__).parents[2] / 'core/web/samples/mugs.jpg')
    result = engine.segment(engine.encode(image), 'all mugs')
    assert result.instances
    assert 'tables only' in result.warning
    assert 'tables only' in result.to_json()['warning']


def test_half_precision_runs(checkpoint, image):
    """bfloat16 is meant for GPUs; on the CPU this only checks that it runs and gives finite scores."""
    engine = InstructSAM.from_pretrained(checkpoint, device='cpu', dtype='bfloat16')
    result = engine.segment(engine.encode(image), 'red cup', answer=TWO, **ALL)
    assert result.instances
    assert all(np.isfinite(instance.score) for instance in result.instances)


@pytest.mark.parametrize(
    ('module', 'says'),
    [
        ('model.language_model.layers.0.mlp.down_proj', 'the score of the next word'),
        ('model.mask_hidden_fcs.0.2', 'the scores of the instances'),
        ('model.grounding_model.model.mask_decoder.mask_embedder', 'the masks of the instances'),
    ],
)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_numbers_that_are_not_finite_are_an_error(engine, image, module, value, says):
    """They never end as an answer without instances, or as an instance whose score is no number."""

    def spoil(module, inputs, output):
        return torch.full_like(output, value)

    encoded = engine.encode(image)
    answer = None if 'language_model' in module else engine.answer_for(['red cup'])
    hook = engine.model.get_submodule(module).register_forward_hook(spoil)
    try:
        with pytest.raises(ModelError, match=f'{says} has values that are not finite'):
            engine.segment(encoded, 'cup', answer=answer)
    finally:
        hook.remove()
