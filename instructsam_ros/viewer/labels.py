"""Texts and classes of an answer's instances, as a viewer and a terminal show them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from instructsam.core.display.label_map import label_map
from instructsam.core.display.overlay import id_text, number_of
from instructsam.core.result import Instance, Result
from instructsam.core.text import shorten
from instructsam_ros.msg import InstanceArray

LARGEST_CLASS = 65_535
"""Rerun's class ids have 16 bits; 0 is the background."""


def label(instance: Any) -> str:
    """Return id, phrase and score of an instance of a result or of a message."""
    return f'{id_text(instance)}{shorten(instance.phrase)} {instance.score:.2f}'


def describe(message: InstanceArray) -> str:
    """Return one line about an answer: the instruction, the objects, and what is missing."""
    if message.status == InstanceArray.STATUS_ERROR:
        outcome = f'error: {shorten(message.message)}'
    else:
        outcome = ', '.join(map(label, message.instances)) or 'no target'
        if message.geometry_message:
            outcome += f' (not measured: {shorten(message.geometry_message)})'
    return f'{shorten(message.instruction)}: {outcome}'


def class_ids(instances: Sequence[Instance]) -> np.ndarray:
    """Return the class [N] uint16 of each instance, from 1. It follows the track id, if there is one."""
    numbers = [number_of(each, index) % LARGEST_CLASS + 1 for index, each in enumerate(instances)]
    return np.array(numbers, np.uint16)


def class_map(result: Result) -> np.ndarray:
    """Return the class of each pixel, [H, W] uint16, 0 for the background; the best score is on top."""
    labels = label_map(result.instances, result.height, result.width)
    return np.concatenate([np.zeros(1, np.uint16), class_ids(result.instances)])[labels]
