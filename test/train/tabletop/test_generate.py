"""Instructions about rendered scenes and their files: shares, visibility, schema, splits, reproducibility."""

import json
import re
from collections import Counter

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

pytest.importorskip('mujoco', reason='MuJoCo renders the tabletop world: pip install mujoco')
from instructsam.core import cli
from instructsam.train.tabletop.generate import generate
from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language import words
from instructsam.train.tabletop.language.contrasts import OPPOSITES
from instructsam.train.tabletop.language.instructions import KINDS, sample_concepts, sample_instructions
from instructsam.train.tabletop.records import record
from instructsam.train.tabletop.scenes import scene as scenes
from instructsam.train.tabletop.world.looks import COLORS
from instructsam.train.tabletop.world.splits import HELD_OUT_COMBINATIONS, HELD_OUT_PAIRS

SCENES, SEED = 40, 4
pytestmark = pytest.mark.usefixtures('opengl')


def _with_instructions(scene):
    return scene, sample_instructions(scene), sample_concepts(scene)


@pytest.fixture(scope='module')
def train():
    return [_with_instructions(scenes.render_scene('train', index, SEED)) for index in range(SCENES)]


@pytest.fixture(scope='module')
def unseen():
    return [_with_instructions(scenes.render_scene('unseen', index, SEED)) for index in range(15)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('two_workers')
    generate(out, 'train', 6, seed=SEED, workers=2, progress=False)
    return out


def test_kinds_are_balanced_and_an_eighth_has_no_target(train):
    counts = Counter(one.kind for _, said, _ in train for one in said)
    total = sum(counts.values())
    assert total > 7.5 * SCENES
    assert set(counts) == {*KINDS, 'none'}
    assert 0.10 <= counts['none'] / total <= 0.15
    assert all(counts[kind] / total > 0.06 for kind in KINDS)
    bare = Counter(one.kind for _, _, phrases in train for one in phrases)
    assert 0.08 <= bare['none'] / sum(bare.values()) <= 0.17


def test_targets_are_clear_and_match_the_phrases(train):
    for scene, said, phrases in train:
        for one in [*said, *phrases]:
            assert (one.kind == 'none') == (not any(one.targets))
            assert len(one.phrases) == len(one.targets) == len(one.program)
            assert (len(one.phrases) > 1) == (one.kind == 'union')
            together = [i for targets in one.targets for i in targets]
            assert len(together) == len(set(together))
            assert all(p.is_clear(scene.objects[i], scene) for i in together)


def test_a_singular_is_one_object(train):
    """An independent parser of the simplest sentences, "the COLOR NOUN.", finds the same objects."""
    checked = 0
    nouns = {
        form: (name, plural)
        for name, forms in words.NOUNS.items()
        for pair in forms
        for plural, form in enumerate(pair)
    }
    for scene, said, _ in train:
        for one in (one for one in said if one.kind in ('category', 'attribute', 'none')):
            text = ' ' + one.text.lower().rstrip('.?').removesuffix(', please')
            _, _, phrase = text.partition(' the ')
            color, _, noun = phrase.rpartition(' ')
            is_simple = text.count(' the ') == 1 and 'of' not in text.split()
            if not is_simple or noun not in nouns or color not in ('', *scene_colors(scene)):
                continue
            name, plural = nouns[noun]
            categories = p.GROUPS.get(name, (name,))
            fitting = [
                o.id
                for o in scene.objects
                if o.category in categories and color in ('', o.color) and p.is_visible(o, scene)
            ]
            assert tuple(fitting) == one.targets[0], one.text
            if one.targets[0] and 'all the' not in text and name != 'scissors':
                assert (len(fitting) > 1) == bool(plural), one.text
            checked += 1
    assert checked > 20


def test_the_answer_without_targets_has_the_number_of_the_request(train):
    """Otherwise the number of the noun would reveal that there is no target, without looking at the image."""
    without_target = [one for _, said, _ in train for one in said if one.kind == 'none' and 'Use' not in one.program[0]]
    several = [one for one in without_target if ' all ' in f' {one.text.lower()} ']
    assert len(several) > 2
    for one in several:
        noun = re.search(r'Kind\((\w+)\)', one.program[0])[1]
        assert words.NOUNS[noun][0][1] in one.phrases[0], one


def test_the_answer_names_the_noun_but_no_attribute_that_was_not_asked_for(train):
    attributes = {*COLORS, *words.MATERIALS.values(), *(word for each in words.SIZES.values() for word in each.common)}
    checked = 0
    for scene, said, _ in train:
        for one in said:
            for phrase, shorter, targets, program in zip(
                one.phrases, one.shorter, one.targets, one.program, strict=True
            ):
                asked = {words.MATERIALS.get(word, word) for word in re.findall(r'\w+', program)}
                assert set(phrase.split()) & attributes <= asked, one
                nouns = {scene.objects[i].category for i in targets}
                if len(nouns) == 1:
                    assert any(form in phrase for form in words.NOUNS[nouns.pop()][0]), one
                if ('Relate' in program or 'Extreme' in program) and 'Use' not in program:
                    assert shorter, one
                    checked += 1
    assert checked > 50


def test_concise_phrases_keep_only_what_the_objects_look_like(train):
    """Those of one instruction differ, because an answer of two equal phrases could not be told apart."""
    checked = 0
    for _, said, phrases in train:
        for one in said:
            assert len(set(one.concise)) == len(one.concise), one
            if one.kind in ('relation', 'superlative', 'counting', 'exclusion'):
                assert one.concise != one.phrases, one
                assert not {'left', 'right', 'behind', 'leftmost', 'two', 'except'} & set(one.concise[0].split()), one
                checked += 1
            if one.kind in ('category', 'attribute'):
                assert one.concise == one.phrases, one
        assert all(one.concise == one.phrases for one in phrases)
    assert checked > 20


def test_contrasts_differ_in_one_word_and_in_their_targets(train):
    differences = Counter()
    for scene, said, _ in train:
        more = sample_instructions(scene, contrasts=3)
        assert more[: len(said)] == said, 'the single instructions do not depend on the pairs'
        pairs = more[len(said) :]
        assert len(pairs) % 2 == 0
        for first, second in zip(pairs[::2], pairs[1::2], strict=True):
            assert first.targets != second.targets
            assert first.kind != 'none' or second.kind != 'none'
            parts = [re.findall(r'[\w ]+', one.program[0]) for one in (first, second)]
            changed = {one.strip() for one in set(parts[0]) ^ set(parts[1])}
            differences['opposite' if changed <= OPPOSITES.keys() else 'other'] += 1
            if changed <= OPPOSITES.keys() and 'none' in (first.kind, second.kind):
                differences['does not hold'] += 1
                nouns = {form for forms in words.NOUNS.values() for pair in forms for form in pair}
                assert {*first.text.split()} & nouns == {*second.text.split()} & nouns, 'the number reveals nothing'
    assert differences['opposite'] > 1.5 * differences['other']
    assert differences['does not hold'] > 20


def test_anchors_are_the_other_objects_that_an_instruction_names(train):
    checked = 0
    for scene, said, phrases in train:
        for one in said:
            for targets, anchors, program in zip(one.targets, one.anchors, one.program, strict=True):
                assert bool(anchors) == bool(re.search('Relate|Between|Closest|Holding|Except', program)), program
                assert not set(anchors) & set(targets)
                named = {scene.objects[i].category for i in anchors}
                groups = {
                    name for noun in re.findall(r'Kind\((\w+)\)', program) for name in p.GROUPS.get(noun, (noun,))
                }
                assert named <= groups
                checked += bool(anchors)
        assert all(one.anchors == ((),) for one in phrases)
    assert checked > 60


def scene_colors(scene):
    return {item.color for item in scene.objects}


def test_left_and_right_agree_with_the_masks(train):
    checked = 0
    for scene, said, _ in train:
        middle = {o.id: np.nonzero(scene.ids == o.id)[1].mean() for o in scene.objects if o.seen_px}
        for one in said:
            operands = one.program[0].split(', ')
            if (
                one.kind != 'relation'
                or one.program[0].count('Relate') != 1
                or operands[-2:-1] not in (['left'], ['right'])
            ):
                continue
            anchors = [o.id for o in scene.objects if f'Kind({o.category})' == operands[-1][:-1]]
            if len(anchors) == 1:
                sides = [middle[i] < middle[anchors[0]] for i in one.targets[0]]
                assert all(side == (operands[-2] == 'left') for side in sides)
                checked += 1
    assert checked > 3


def test_train_has_no_wording_reserved_for_unseen(train):
    rare = [
        wording.replace('{}', '').replace('{np}', '').replace('{verb}', '').strip()
        for wordings in (*words.RELATIONS.values(), *words.EXTREMES.values(), words.VERBS, words.FRAMES)
        for wording in wordings.unseen
    ]
    rare = [wording for wording in rare if wording not in ('.', 'with') and len(wording) > 5]
    assert len(rare) > 15
    for scene, said, phrases in train:
        assert not {(o.category, o.color) for o in scene.objects} & HELD_OUT_PAIRS
        for one in [*said, *phrases]:
            assert not one.novel
            assert not any(f' {color} {category}' in f' {one.text} {one.phrases}' for category, color in HELD_OUT_PAIRS)
            if one.kind != 'intent':
                assert not any(f' {wording} ' in f' {one.text.lower()} ' for wording in rare), one.text
            for program in one.program:
                operators = set(program.replace('(', ' ').replace(')', ' ').replace(',', ' ').split())
                plain = [pair for pair in HELD_OUT_COMBINATIONS if 'several' not in pair]
                assert not any(pair <= operators for pair in plain), program


def test_unseen_always_has_something_new(unseen):
    found = Counter(novel for _, said, phrases in unseen for one in [*said, *phrases] for novel in one.novel)
    assert all(one.novel for _, said, phrases in unseen for one in [*said, *phrases])
    assert set(found) == {'pair', 'combination', 'wording'}


def test_records_follow_the_schema(folder):
    kinds = Counter()
    scenes_by_image = {facts['image']: facts for facts in map(json.loads, (folder / 'train_scenes.jsonl').open())}
    assert len(scenes_by_image) == 6
    for name in ('train_sentences.json', 'train_phrases.json'):
        written = json.loads((folder / name).read_text())
        assert written
        together = Counter(one['image'] for one in written)
        assert set(together.values()) == {1}, 'the image of a scene is read once for all that is asked about it'
        for one in written:
            image = cv2.imread(str(folder / one['image']))
            assert image.shape[:2] == (one['height'], one['width'])
            facts = scenes_by_image[one['image']]
            assert all(one[key] == facts[key] for key in ('split', 'seed', 'index'))
            assert one['type'] == 'seg'
            joint = Counter(each['instruction'] for each in one['annotation'] if 'instruction' in each)
            assert all(count > 1 for count in joint.values())
            assert not joint or name == 'train_sentences.json'
            for annotation in one['annotation']:
                kinds[annotation['kind']] += 1
                is_union = 'instruction' in annotation
                assert is_union == (annotation['kind'] == 'union')
                assert annotation['type'] == ('phrase' if name == 'train_phrases.json' or is_union else 'sentence')
                assert annotation['text']
                assert annotation['ann_type'] == 'mask'
                assert ('category' in annotation) == (annotation['type'] == 'sentence')
                assert annotation['program']
                assert annotation['novel'] == []
                targets = annotation['targets']
                assert (annotation['ann'] is None) == (not targets)
                assert len(annotation['ann'] or []) == len(targets)
                for text, target in zip(annotation['ann'] or [], targets, strict=True):
                    mask = coco.decode(json.loads(text))
                    assert mask.shape == image.shape[:2]
                    assert mask.any()
                    assert np.array_equal(mask, coco.decode(facts['objects'][target]['mask']))
    assert 'union' in kinds
    assert 'none' in kinds


def test_records_hold_every_instruction(train, unseen):
    """The records read back equal the instructions: merging those of a scene loses and duplicates none."""
    for scene, said, phrases in [*train, *unseen]:
        for many, bare in ((said, False), (phrases, True)):
            actual = [*_read(record(scene, many, bare=bare))]
            expected = [
                (o.text, o.kind, *group, o.novel)
                for o in many
                for group in zip(o.phrases, o.concise, o.shorter, o.targets, o.program, strict=True)
            ]
            assert actual == expected


def _read(record):
    """Yield (text, kind, phrase, concise, shorter, targets, program, novel) of each annotation."""
    for annotation in record['annotation']:
        phrase = annotation.get('category', annotation['text'])
        text = annotation.get('instruction', annotation['text'])
        yield (
            text,
            annotation['kind'],
            phrase,
            annotation['concise'],
            tuple(annotation['shorter']),
            tuple(annotation['targets']),
            annotation['program'],
            tuple(annotation['novel']),
        )


def test_depth_files_hold_millimetres(folder):
    facts = json.loads((folder / 'train_scenes.jsonl').open().readline())
    depth = cv2.imread(str(folder / facts['depth']), cv2.IMREAD_UNCHANGED)
    scene = scenes.render_scene('train', facts['index'], facts['seed'])
    assert depth.dtype == np.uint16
    assert np.abs(depth / 1000 - scene.depth).max() < 0.00051
    assert np.allclose(facts['intrinsics'], scene.camera.intrinsics, atol=1e-5)


def test_any_number_of_workers_writes_the_same_bytes(folder, tmp_path):
    generate(tmp_path, 'train', 6, seed=SEED, workers=1, progress=False)
    names = sorted(path.relative_to(folder) for path in folder.rglob('*') if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob('*') if path.is_file())
    assert len(names) == 6 + 6 + 4
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_command_line(tmp_path, capsys):
    size = ['--size', '96', '64']
    chosen = ['--split', 'val', '--scenes', '1', '--seed', '3', '--workers', '1', '--no-depth', *size]
    assert cli.main(['tabletop', 'generate', str(tmp_path), *chosen]) == 0
    assert 'sentences:' in capsys.readouterr().out
    assert not (tmp_path / 'depth').exists()
    assert json.loads((tmp_path / 'val_scenes.jsonl').read_text())['width'] == 96


def test_no_scenes_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='at least one scene'):
        generate(tmp_path, 'train', 0, seed=0)
