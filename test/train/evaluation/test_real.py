"""The benchmark `real` on made-up stamps: exact masks, clear answers, reproducible; packages are checked."""

import hashlib
import io
import json
import subprocess
import tarfile
import zipfile

import cv2
import numpy as np
import pytest

from instructsam.core import cli
from instructsam.core.errors import DataError
from instructsam.train import packages
from instructsam.train.evaluation.figures.metrics import compute_metrics, match_masks
from instructsam.train.evaluation.real import composite, photo, questions, source, stamps
from instructsam.train.evaluation.real.stamps import StampFacts, make_stamp
from instructsam.train.packages import Package, find_package, read_members
from instructsam.train.tabletop.language.words import canonical

COLORS = {'red': (220, 20, 20), 'green': (20, 200, 30), 'yellow': (240, 230, 20), 'gray': (120, 120, 120)}


def png(color, *, width=40, height=30, opacity=255):
    """An ellipse of one colour with a transparent border."""
    picture = np.zeros((height, width, 4), np.uint8)
    center, axes = (width // 2, height // 2), (width // 2 - 3, height // 2 - 3)
    cv2.ellipse(picture, center, axes, 0, 0, 360, (*COLORS[color][::-1], opacity), -1)
    return cv2.imencode('.png', picture)[1].tobytes()


def stamp(noun, color, length_cm=9.0, **options):
    return make_stamp(StampFacts(noun, color, length_cm, **options), png(color), noun)


KNOWN = [stamp('apple', 'red'), stamp('apple', 'green'), stamp('lemon', 'yellow', rolls=True), stamp('mug', 'red', 11)]
OTHER = [stamp('hammer', 'gray', 16, rolls=True), stamp('pliers', 'gray', 12)]
SURFACES = [np.full((300, 400, 3), 235, np.uint8), np.full((90, 90, 3), 225, np.uint8)]


def opened(split='known', seed=0, images=12, **options):
    return source.RealSource(split, seed, images, KNOWN, OTHER, SURFACES, **options)


def drawn(**options):
    made = opened(**options)
    return [image for _, image in made.open(range(len(made)))]


def test_masks_cover_the_objects_and_nothing_else():
    for seed in range(6):
        image, items = composite.draw_composite(KNOWN, OTHER, SURFACES, np.random.default_rng(seed))
        assert len(items) >= 3
        assert sum(item.mask for item in items).max() == 1
        for item in items:
            inside = cv2.erode(item.mask.astype(np.uint8), np.ones((5, 5))) > 0
            color = image[inside].mean(axis=0)
            assert (
                np.abs(color / color.max() - np.array(COLORS[item.facts.color]) / max(COLORS[item.facts.color])).max()
                < 0.3
            )
            x0, y0, x1, y1 = item.box
            assert 0 < x0 < x1 < composite.WIDTH
            assert 0 < y0 < y1 < composite.HEIGHT


def test_the_same_seed_draws_the_same_and_a_larger_number_only_appends():
    first, again, more = drawn(), drawn(), drawn(images=14)
    for one, two, three in zip(first, again, more, strict=False):
        assert np.array_equal(one.load(), two.load())
        assert [query.text for query in one.queries] == [query.text for query in two.queries]
        assert np.array_equal(one.load(), three.load())
    assert not np.array_equal(drawn(seed=1)[0].load(), first[0].load())
    limited = drawn(limit=7)
    assert sum(len(image.queries) for image in limited) == 7


def test_every_type_of_instruction_has_a_right_answer(monkeypatch):
    monkeypatch.setattr(questions, 'concise', canonical)  # the whole phrase tells which objects are right
    kinds = set()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        _, items = composite.draw_composite(KNOWN, OTHER, SURFACES, rng)
        nouns = [each.facts.noun for each in KNOWN]
        for asked in questions.ask_known(items, nouns, rng):
            kinds.add(asked.kind)
            assert (asked.kind == 'none') == (not asked.targets)
            found = [items[i] for i in asked.targets]
            words = asked.phrase.split()
            if asked.kind in ('category', 'attribute'):
                noun = found[0].facts.noun
                color = words[0] if asked.kind == 'attribute' else ''
                expected = [
                    i for i, item in enumerate(items) if item.facts.noun == noun and color in ('', item.facts.color)
                ]
                assert sorted(asked.targets) == expected
            elif asked.kind == 'relation':
                anchor = next(item for item in items if item.facts.noun == words[-1])
                sign = -1 if 'left' in words else 1
                for item in found:
                    assert sign * (sum(item.box[::2]) - sum(anchor.box[::2])) > 0
            elif asked.kind == 'superlative' and 'largest' in words:
                same = [item for item in items if item.facts.noun == found[0].facts.noun]
                assert max(same, key=lambda item: item.mask.sum()) is found[0]
            elif asked.kind == 'none' and len(words) == 2:
                assert words[0] not in {item.facts.color for item in items if item.facts.noun == words[1]}
            elif asked.kind == 'none':
                assert words[0] not in {item.facts.noun for item in items}
    assert kinds == set(questions.KINDS)


def test_phrases_are_concise():
    phrases = {phrase for image in drawn() for query in image.queries for phrase in query.phrases}
    assert len(phrases) > 5
    assert not {'left', 'right', 'leftmost', 'rightmost', 'largest'} & set(' '.join(phrases).split())


def test_other_nouns():
    texts = [(query.text, query.phrases) for image in drawn(split='other', images=10) for query in image.queries]
    assert {phrases for _, phrases in texts} == {('hammer',), ('pliers',)}


def wheel(path):
    mask = np.zeros((2, 20, 30), np.int32)
    mask[0, 3:9, 4:9], mask[0, 9:12, 4:9], mask[1, 12:18, 20:28] = 1, 2, 1
    arrays = io.BytesIO()
    np.savez(arrays, rgb=np.full((20, 30, 3), 90, np.uint8), masks=mask, labels=np.array([1, 2]))
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(photo.MEMBERS[0], arrays.getvalue())
        archive.writestr(photo.MEMBERS[1], '_background_\nfiskars_scissors\nlaugh_out_loud_jokes\n')
    return path


def test_the_photograph(tmp_path):
    image = photo.read_photo(wheel(tmp_path / 'a.whl'), known=True)
    by_phrase = {query.phrases[0]: [mask.area for mask in query.ground_truth] for query in image.queries}
    assert by_phrase == {'scissors': [30], 'book': [48], 'mug': [], 'banana': [], 'teapot': []}
    assert drawn(photo=image)[0] is image
    with pytest.raises(DataError, match='holds no photograph'):
        photo.read_photo(tmp_path / 'a.whl', known=False)


def deb(path, files):
    """A Debian package: an archive of `ar` with a compressed tar file in it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode='w:xz') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f'./{name}')
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with path.open('wb') as file:
        file.write(b'!<arch>\n')
        for name, content in (
            ('debian-binary', b'2.0\n'),
            ('control.tar.xz', b'odd'),
            ('data.tar.xz', data.getvalue()),
        ):
            file.write(f'{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n'.encode())
            file.write(content + b'\n' * (len(content) % 2))
    return path


def test_stamps_of_a_debian_package(tmp_path):
    facts = {'a/b.png': StampFacts('apple', 'red', 8), 'c.png': StampFacts('glass', 'clear', 9, solid=0.1)}
    files = {stamps.FOLDER + 'a/b.png': png('red'), stamps.FOLDER + 'c.png': png('gray', opacity=60)}
    read = stamps.read_stamps(deb(tmp_path / 'a.deb', files), facts)
    assert [each.facts.noun for each in read] == ['apple', 'glass']
    assert read[0].picture.shape[2] == 4
    assert tuple(read[0].picture[10, 15]) == (*COLORS['red'], 255)
    with pytest.raises(DataError, match=r'lacks .*c\.png'):
        stamps.read_stamps(deb(tmp_path / 'b.deb', {stamps.FOLDER + 'a/b.png': png('red')}), facts)
    with pytest.raises(DataError, match='transparent everywhere'):
        stamps.read_stamps(tmp_path / 'a.deb', {'c.png': StampFacts('glass', 'clear', 9)})
    for content in (b'', b'!<arch>\n', b'hello'):
        (tmp_path / 'c.deb').write_bytes(content)
        with pytest.raises(DataError, match='cannot be read'):
            read_members(tmp_path / 'c.deb', ['a'])


def test_a_package_is_fetched_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    package = Package('a.txt', hashlib.sha256(b'hello').hexdigest(), ('sh', '-c', 'printf hello > a.txt'), 'MIT')
    path = find_package(package)
    assert path == tmp_path / 'cache/instructsam/packages/a.txt'
    monkeypatch.setattr(subprocess, 'run', None)
    assert find_package(package) == path
    path.write_text('other')
    with pytest.raises(DataError, match='SHA-256'):
        find_package(package)
    with pytest.raises(DataError, match=r'has no a\.txt.*printf'):
        find_package(package, tmp_path)


@pytest.mark.parametrize('command', [('false',), ('true',), ('no-such-program-anywhere',)])
def test_a_package_that_cannot_be_fetched(tmp_path, monkeypatch, command):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    with pytest.raises(DataError, match='failed'):
        find_package(Package('a.txt', '', command, 'MIT'))


def test_recall_counts_objects():
    masks = [np.zeros((4, 8), bool) for _ in range(3)]
    for index, mask in enumerate(masks):
        mask[:, 2 * index : 2 * index + 2] = True
    from instructsam.core.rle import Rle

    truth = [Rle.encode(mask) for mask in masks]
    two_of_three = match_masks(truth[:2], [0.9, 0.6], truth, 0.5)
    one_below = match_masks(truth[:2], [0.4, 0.9], truth[:1], 0.5)
    assert two_of_three.num_recalled == 2
    assert one_below.num_recalled == 0
    assert compute_metrics([two_of_three, one_below])['recall'] == 0.5


def test_command_line(tmp_path, monkeypatch, capsys):
    """The built-in model on two images, from the command to the figures, without a network."""
    made = opened(images=2)
    monkeypatch.setattr('instructsam.train.evaluation.evaluate.open_real', lambda *_: made)
    options = ['--images', '2', '--results', str(tmp_path / 'run'), '--json', str(tmp_path / 'a.json')]
    assert cli.main(['eval', 'real', *options]) == 0
    figures = json.loads((tmp_path / 'a.json').read_text())
    assert figures['split'] == 'known'
    assert 0 <= figures['all']['recall'] <= 100
    assert {'kind', 'image'} <= {name.removeprefix('by_') for name in figures}
    assert 'recall' in capsys.readouterr().out
    page, report = tmp_path / 'report.html', ['eval', 'report', str(tmp_path / 'run'), '--out']
    opener = 'instructsam.train.evaluation.reporting.cases.open_real'
    monkeypatch.setattr(opener, lambda *_: made)
    assert cli.main([*report, str(page)]) == 0
    assert page.read_text().count('data:image/jpeg') == figures['all']['queries']  # every case has its image
    monkeypatch.setattr(opener, lambda *_: find_package(Package('a.txt', '', ('false',), 'MIT'), tmp_path))
    assert cli.main([*report, str(page)]) == 0
    assert 'data:image/jpeg' not in page.read_text()
    assert 'has no a.txt' in page.read_text()
    missing = tmp_path / 'empty'
    missing.mkdir()
    monkeypatch.undo()
    assert cli.main(['eval', 'real', '--data', str(missing)]) == 2
    assert packages.STAMPS.file in capsys.readouterr().err
