"""The page in a real Chromium: ask, see masks, ask again, no target, errors, depth.

The tests share a tab: to load the page takes most of their time.
"""

import re

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('gradio', reason='needs the extra web')

from browser import chromium, tab
from web_engine import PageEngine

from instructsam.core.web.model_source import ModelSource
from instructsam.core.web.page import Page
from instructsam.core.web.samples import samples
from instructsam.core.web.server import listen, private_folder, serve


@pytest.fixture(scope='module')
def engine():
    return PageEngine()


@pytest.fixture(scope='module')
def url(engine):
    source = ModelSource(engine)
    with private_folder(), listen('127.0.0.1', 0) as listener, serve(Page(source, samples(), 1), listener) as url:
        yield url


@pytest.fixture(scope='module')
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope='module')
def page(browser, url):
    with tab(browser, url) as page:
        yield page


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)).save(path)
    return path


def give(page, photo):
    if page.locator('#image img').count():
        page.get_by_label('Remove Image').click()
    page.set_input_files('#image input[type=file]', photo)
    page.wait_for_selector('#image img', state='attached')


def ask(page, instruction):
    page.fill('#instruction textarea', instruction)
    page.click('#ask')


def wait_for(page, text):
    page.locator('.is-status', has_text=text).wait_for()


def test_errors(page, tmp_path):
    ask(page, 'the mugs')
    wait_for(page, 'no image yet')
    bad = tmp_path / 'notes.png'
    bad.write_text('not an image')
    give(page, bad)
    ask(page, 'the mugs')
    wait_for(page, 'cannot read notes.png')
    large = tmp_path / 'large.png'
    Image.fromarray(np.zeros((1100, 1000), np.uint8)).save(large)
    give(page, large)
    ask(page, 'the mugs')
    wait_for(page, 'megapixels')
    ask(page, ' ')
    wait_for(page, 'no instruction yet')
    assert page.locator('#history button').count() == 0


def test_ask_and_ask_again(page, photo):
    give(page, photo)
    ask(page, 'the mugs')
    wait_for(page, '2 objects')
    assert page.locator('#masks path').count() == 2
    assert page.locator('.is-status q').inner_text() == 'red <mug>'
    assert re.search(r'total 19 ms', page.inner_text('#times'))

    first, second = page.locator('#masks .m0.is-mask'), page.locator('#masks .m1.is-mask')
    page.hover('#masks .r0')
    page.wait_for_function("getComputedStyle(document.querySelector('#masks .is-mask.m1')).opacity < 0.2")
    page.uncheck('#masks .r0 input')
    assert not first.is_visible()
    assert second.is_visible()
    page.check('#masks .r0 input')
    assert first.is_visible()

    ask(page, 'nothing of that kind')
    wait_for(page, 'nothing matches')
    assert page.locator('#masks path').count() == 0
    history = page.locator('#history button')
    assert [text.split('\n')[0] for text in history.all_inner_texts()] == ['nothing of that kind', 'the mugs']
    history.last.click()
    page.wait_for_selector('#masks path')
    assert page.locator('.is-status b').inner_text() == '2 objects'


def test_a_newer_question_replaces_the_older(engine, page, photo):
    give(page, photo)
    before = page.locator('#history button').count()
    ask(page, 'wait for it')
    assert engine.begun.wait(60)
    ask(page, 'the mugs on the left')
    page.locator('#history button', has_text='on the left').wait_for()
    assert engine.cancelled == 1
    assert page.locator('#history button').count() == before + 1
    ask(page, 'fail of the tests')
    wait_for(page, 'unexpected RuntimeError: of the tests')
    assert page.locator('#masks path').count() == 0


def test_a_sample_with_depth_is_shown_in_3d(page, monkeypatch):
    monkeypatch.setattr('instructsam.core.web.scene.MOST_POINTS', 500)  # Chromium draws them without a graphics card
    page.locator('#samples tbody tr').first.click()
    taken = f"document.querySelector('#instruction textarea').value === '{samples()[0].instruction}'"
    page.wait_for_function(taken)  # image and depth come with it; an image may be there from before
    page.wait_for_selector('#image img')
    page.click('#ask')
    page.wait_for_selector('#scene .js-plotly-plot .legend', state='attached')
