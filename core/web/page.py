"""The Gradio components of the page and their events.

Gradio is imported here and in `server`. Every event is private: the page is not an interface for programs, which have
the engine, the node and the command line.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData
from gradio.themes import Soft

from instructsam.core.errors import CancelledError, InstructSAMError
from instructsam.core.text import one_line
from instructsam.core.web.form import Form, read_form
from instructsam.core.web.samples import Sample
from instructsam.core.web.source import Source
from instructsam.core.web.summary import Entry, entry_of, error_view, history_view

MOST_ENTRIES = 12  # questions in the history of a tab
CAMERA, OWN = 'camera of the node', 'own image'
STYLE = Path(__file__).with_name('style.css')
THEME = Soft(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])  # no font from the network
CLICK = """
element.addEventListener('click', event => {
    const button = event.target.closest('[data-index]');
    if (button) trigger('click', {index: Number(button.dataset.index)});
});
"""
"""Script of the history: passes the clicked question to the event."""

REFRESH = """
const image = element.querySelector('img');
const load = () => { image.src = 'camera.jpg?' + Date.now(); };
image.addEventListener('load', () => setTimeout(load, 300));
image.addEventListener('error', () => setTimeout(load, 1000));
load();
"""
"""Script of the camera: loads the newest image as soon as the one before is shown."""


def _take_uploads_only(component: Any) -> None:
    """Let a gr.Image or gr.File take uploaded files as they are.

    Gradio would also download from addresses, take any file of this machine from a request that does not mark it as a
    file, and decode an image before its size is checked. The methods are replaced in the instance, as Gradio writes a
    .pyi file beside the source of every subclass.
    """
    move = component.async_move_resource_to_block_cache

    async def move_file(path: str | Path | None) -> str | None:
        if '://' in str(path):
            raise gr.Error('give a file: the page downloads nothing')
        return await move(path)

    def path_of_upload(payload: Any) -> str | None:
        if payload is None or payload.path is None:
            return None
        if not Path(payload.path).resolve().is_relative_to(Path(component.GRADIO_CACHE).resolve()):
            raise gr.Error('give a file that was uploaded')
        return payload.path

    component.async_move_resource_to_block_cache = move_file
    component.preprocess = path_of_upload


class Newest:
    """The newest question of each tab, which replaces the one before."""

    def __init__(self) -> None:
        self._questions: dict[str, object] = {}

    def begin(self, tab: str) -> Callable[[], bool]:
        """Begin a question of a tab, which cancels its earlier one.

        Returns:
            A function that returns true once this question is no longer wanted.
        """
        self._questions[tab] = question = object()
        return lambda: self._questions.get(tab) is not question

    def leave(self, tab: str) -> None:
        """Cancel the question of a tab that was closed."""
        self._questions.pop(tab, None)

    def close(self) -> None:
        """Cancel all questions."""
        self._questions.clear()


class Page:
    """The page of one source.

    Args:
        source: Answers the questions.
        samples: Images to begin with.
        max_megapixels: Largest image that is decoded.
    """

    def __init__(self, source: Source, samples: Sequence[Sample], max_megapixels: float) -> None:
        self.newest = Newest()
        self.source = source
        self._samples = list(samples)
        self._max_megapixels = max_megapixels
        self.sample_folders = sorted({str(sample.image.parent) for sample in samples})  # the browser may load these
        self.blocks = self._build()

    def _build(self) -> gr.Blocks:
        source = self.source
        with gr.Blocks(
            title='InstructSAM', analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)
        ) as blocks:
            history = gr.State([])
            gr.HTML(f'<h1>InstructSAM</h1><span>{escape(one_line(source.name))}</span>', elem_classes='is-title')
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    chosen, picture = self._image_inputs()
                    instruction = gr.Textbox(
                        label='Instruction',
                        placeholder='the mugs left of the kettle',
                        elem_id='instruction',
                        max_lines=3,
                    )
                    ask = gr.Button('Ask', variant='primary', elem_id='ask')
                    with gr.Accordion('Options', open=False):
                        threshold = gr.Slider(0.05, 0.95, 0.5, step=0.05, label='Show objects that score above')
                        depth = gr.File(
                            label='Depth image of the same size (16-bit PNG in mm; TIFF or NPY in m)',
                            visible=source.takes_depth,
                        )
                        _take_uploads_only(depth)
                        with gr.Row(visible=source.takes_depth):
                            camera = [
                                gr.Number(label=name, value=None, min_width=70) for name in ('fx', 'fy', 'cx', 'cy')
                            ]
                    examples = self._examples()
                with gr.Column(scale=3, min_width=420):
                    status = gr.HTML('<div class="is-status"><span>Give an image and an instruction.</span></div>')
                    masks = gr.HTML(js_on_load=None, elem_id='masks')
                    times = gr.HTML(js_on_load=None, elem_id='times')
                    figure = gr.Plot(visible=False, show_label=False, elem_id='scene')
                    with gr.Accordion('History', open=True):
                        past = gr.HTML(history_view([]), js_on_load=CLICK, elem_id='history')

            shown = [status, masks, times, figure]
            depth_inputs = [depth, *camera]
            gr.on(
                [ask.click, instruction.submit],
                self._ask,
                [history, chosen, picture, instruction, threshold, *depth_inputs],
                [*shown, past, history],
                trigger_mode='multiple',  # a newer question replaces the one that is being answered
                concurrency_limit=None,  # the source queues them
                show_progress_on=[status],
                api_visibility='private',
            )
            past.click(self._show_again, [history], shown, api_visibility='private', show_progress='hidden')
            if examples is not None:
                examples.click(
                    self._take_sample,
                    [examples],
                    [chosen, picture, instruction, *depth_inputs],
                    api_visibility='private',
                    show_progress='hidden',
                )
            # The depth of another image would locate the objects at wrong places.
            picture.input(
                lambda: [None] * len(depth_inputs), None, depth_inputs, api_visibility='private', show_progress='hidden'
            )
            if source.has_camera:
                chosen.change(
                    lambda choice: gr.update(visible=choice == OWN),
                    [chosen],
                    [picture],
                    api_visibility='private',
                    show_progress='hidden',
                )
            blocks.unload(self._leave)
        return blocks.queue(api_open=False)

    def _image_inputs(self) -> tuple[gr.Radio, gr.Image]:
        """Add the live camera, if there is one, and the image of the user."""
        has_camera = self.source.has_camera
        chosen = gr.Radio(
            [CAMERA, OWN], value=CAMERA if has_camera else OWN, label='Ask about', visible=has_camera, elem_id='chosen'
        )
        if has_camera:
            gr.HTML('<img alt="newest image of the camera">', js_on_load=REFRESH, elem_classes='is-camera')
        picture = gr.Image(
            label='Image',
            type='filepath',
            sources=['upload', 'webcam', 'clipboard'],
            webcam_options=gr.WebcamOptions(mirror=False),  # mirrored, left would be right, and text unreadable
            visible=not has_camera,
            height=360,
            elem_id='image',
        )
        _take_uploads_only(picture)
        return chosen, picture

    def _examples(self) -> gr.Dataset | None:
        if not self._samples:
            return None
        return gr.Dataset(
            components=[gr.Image(type='filepath', render=False), gr.Textbox(render=False)],
            samples=[[str(sample.image), sample.instruction] for sample in self._samples],
            headers=['Samples', 'instruction'],
            show_label=False,
            type='index',
            elem_id='samples',
        )

    # Events

    def _ask(
        self,
        request: gr.Request,
        history: list[Entry],
        chosen: str,
        picture: str | None,
        instruction: str,
        threshold: float,
        depth: str | None,
        *camera: float | None,
    ) -> list[Any]:
        """Answer a question; a newer one of the same tab ends it without a trace."""
        cancelled = self.newest.begin(request.session_hash or '')
        form = Form(instruction, None if chosen == CAMERA else picture, chosen == CAMERA, threshold, depth, camera)
        try:
            entry = entry_of(self.source.answer(read_form(form, self._max_megapixels), cancelled))
            history = [*history, entry][-MOST_ENTRIES:]
            values = [*self._shown(entry), history_view(history), history]
        except CancelledError:
            return [gr.skip()] * 6
        except InstructSAMError as error:
            values = self._refuse(str(error))
        except Exception as error:  # the page says it, and the terminal where it happened
            traceback.print_exc(file=sys.stderr)
            values = self._refuse(f'unexpected {type(error).__name__}: {one_line(error)}; the terminal shows where')
        return [gr.skip()] * 6 if cancelled() else values

    def _refuse(self, message: str) -> list[Any]:
        return [error_view(message), '', '', gr.update(value=None, visible=False), gr.skip(), gr.skip()]

    def _shown(self, entry: Entry) -> list[Any]:
        """Return the values of status, masks, times and figure."""
        plot = PlotData(type='plotly', plot=entry.figure) if entry.figure else None
        return [entry.status, entry.masks, entry.times, gr.update(value=plot, visible=plot is not None)]

    def _show_again(self, history: list[Entry], event: gr.EventData) -> list[Any]:
        return self._shown(history[event.index])

    def _take_sample(self, index: int) -> list[Any]:
        sample = self._samples[index]
        has_depth = self.source.takes_depth and sample.depth is not None
        depth, camera = (str(sample.depth), sample.camera) if has_depth else (None, (None,) * 4)
        return [OWN, gr.update(value=str(sample.image), visible=True), sample.instruction, depth, *camera]

    def _leave(self, request: gr.Request) -> None:
        self.newest.leave(request.session_hash or '')
