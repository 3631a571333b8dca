"""A simulated policy of the agent behind real HTTP: it knows the tabletop scenes, and chooses as an oracle would."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent_replies import call

from instructsam.core.display.jpeg import jpeg_url
from instructsam.core.rle import Rle
from instructsam.train.evaluation.query import ImageQueries, Query

MATCH = 0.5  # IoU with a true mask from which the oracle chooses a mask


def phrase_of(query: Query) -> str:
    """Return the phrase that the policy tries: the first of the true answer."""
    return query.phrases[0]


def oracle_choice(masks: Sequence[Rle], query: Query) -> list[int]:
    """Return the numbers, from 1, of the masks that match a true one."""
    return [
        number
        for number, mask in enumerate(masks, start=1)
        if len(query.ground_truth) and mask.iou(query.ground_truth).max() >= MATCH
    ]


class SimulatedPolicy:
    """Answers the agent's messages from the truth.

    It gets what a model gets: the text and the pictures. It recognises the scene by the first picture and the query by
    its text, asks for the phrase of the true answer, and chooses the masks that match a true one.

    Args:
        images: The scenes with their queries.
        find: The masks of a phrase in a scene, in the agent's order, computed apart from it.
    """

    def __init__(self, images: Sequence[ImageQueries], find: Callable[[ImageQueries, str], Sequence[Rle]]) -> None:
        self.scenes: Mapping[str, ImageQueries] = {jpeg_url(image.load()): image for image in images}
        self.find = find

    def __call__(self, request: dict[str, Any]) -> str:
        """Return the reply to a request."""
        picture, question = request['messages'][1]['content']
        scene = self.scenes[picture['image_url']['url']]
        text = ast.literal_eval(question['text'].splitlines()[0].partition('The query: ')[2])
        query = next(each for each in scene.queries if each.text == text)
        if len(request['messages']) == 2:
            return call('segment_phrase', text_prompt=phrase_of(query))
        chosen = oracle_choice(self.find(scene, phrase_of(query)), query)
        if not chosen:
            return f'<think>Nothing fits.</think>{call("report_no_mask")}'
        return call('select_masks_and_return', final_answer_masks=chosen)
