"""The page in a real Chromium: ask, see masks, ask again, no target, errors, depth, several tabs."""

import re
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('gradio', reason='needs the extra web')

from browser import chromium, tab
from web_engine import PageEngine

from instructsam.core.web.model_source import ModelSource
from instructsam.core.web.page import Page
from instructsam.core.web.samples import samples
from instructsam.core.web.server import listen, serve
from instructsam.core.web.uploads import private_folder


@pytest.fixture(scope='module')
def served():
    """Serve a page about a stand-in engine; yields (engine, URL)."""
    engine = PageEngine()
    with private_folder(), listen('127.0.0.1', 0) as listener:
        source = ModelSource(engine)
        with serve(Page(source, samples(), 1), source, listener, is_local=True) as url:
            yield engine, url


@pytest.fixture(scope='module')
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)).save(path)
    return path


@contextmanager
def opened(browser, served, photo=None):
    with tab(browser, served[1]) as page:
        if photo is not None:
            give(page, photo)
        yield page


def give(page, photo):
    page.set_input_files('#image input[type=file]', photo)
    page.wait_for_selector('#image img')


def ask(page, instruction):
    page.fill('#instruction textarea', instruction)
    page.click('#ask')


def wait_for(page, text):
    page.wait_for_selector('.is-status', state='attached')
    page.get_by_text(text).first.wait_for()


def test_ask_and_ask_again(browser, served, photo):
    with opened(browser, served, photo) as page:
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


def test_errors(browser, served, tmp_path):
    with opened(browser, served) as page:
        ask(page, 'the mugs')
        wait_for(page, 'no image yet')
        bad = tmp_path / 'notes.png'
        bad.write_text('not an image')
        page.set_input_files('#image input[type=file]', bad)
        page.wait_for_selector('#image img', state='attached')
        ask(page, 'the mugs')
        wait_for(page, 'cannot read notes.png')
    with opened(browser, served) as page:
        large = tmp_path / 'large.png'
        Image.fromarray(np.zeros((1100, 1000), np.uint8)).save(large)
        give(page, large)
        ask(page, 'the mugs')
        wait_for(page, 'megapixels')
        ask(page, ' ')
        wait_for(page, 'no instruction yet')


def test_a_sample_with_depth_is_shown_in_3d(browser, served):
    with opened(browser, served) as page:
        page.locator('#samples tbody tr').first.click()
        page.wait_for_selector('#image img')
        page.click('#ask')
        page.wait_for_selector('#scene .js-plotly-plot .legend', state='attached')


def test_a_newer_question_replaces_the_older_and_tabs_are_apart(browser, served, photo):
    engine, _ = served
    with opened(browser, served, photo) as page, opened(browser, served, photo) as other:
        ask(page, 'wait for it')
        assert engine.begun.wait(60)
        ask(other, 'fail of the tests')  # waits for the model
        ask(page, 'the mugs')
        wait_for(page, '2 objects')
        assert engine.cancelled == 1
        assert page.locator('#history button').count() == 1
        wait_for(other, 'unexpected RuntimeError: of the tests')
        assert other.locator('#history button').count() == 0
        ask(other, 'bad words')
        wait_for(other, 'words')
