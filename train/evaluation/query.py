"""What is asked and what came back: Query in, Outcome out. An Outcome is one line of a run's results, for good.

It holds the truth beside what was found, so that figures, reports and comparisons need no data set.
"""

import json
import zlib
from dataclasses import dataclass, field

import numpy as np

from instructsam.core.image_file import read_image
from instructsam.core.rle import Rle

CHECK = ',"crc32":"'  # the last field of a line: of all before it, as it would be without


@dataclass(frozen=True, eq=False)
class Query:
    """One sample of a benchmark: a text about an image, and all masks that it means."""

    id: str  # its own within the split, the same in every process and run
    text: str  # as annotated
    truth: tuple[Rle, ...] = ()
    ignore: Rle | None = None  # pixels that count neither way (ReasonSeg)
    # e.g. {'form': 'long'}, or several names in a list: figures are given for each
    groups: dict[str, str | list[str]] = field(default_factory=dict)
    form: str = ''  # which of the benchmark's prompts the text is put into
    phrases: tuple[str, ...] = ()  # the answer's true phrases, where they are known
    error: str = ''  # why the sample cannot be asked: its annotation is broken


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with everything that is asked about it."""

    image: str  # its path, or a name for people where `pixels` are given
    queries: tuple[Query, ...]
    pixels: np.ndarray | None = None  # [H, W, 3] uint8 RGB

    def load(self):
        """The image, [H, W, 3] uint8 RGB. Raises ImageError."""
        return read_image(self.image) if self.pixels is None else self.pixels


@dataclass(frozen=True, eq=False)
class Outcome:
    """A query with what the model found, or why it could not be asked (`error`)."""

    order: tuple[int, int, int]  # of the scene in the split, of the query in the scene, of how many
    image: str
    query: Query
    prompt: str = ''
    masks: tuple[Rle, ...] = ()  # all that rank in AP, best first
    scores: tuple[float, ...] = ()
    answer: str = ''
    phrases: tuple[str, ...] = ()  # as the model named them
    named: bool = False  # the phrases were given to the model
    timings_ms: dict[str, float] = field(default_factory=dict)
    error: str = ''

    @property
    def right(self):
        """Whether the model's phrases are the true ones, 0 or 1; nan where they were given or are not known."""
        return np.nan if self.named or not self.query.phrases else float(self.phrases == self.query.phrases)

    def to_line(self):
        """One line of JSON, with COCO's compressed run lengths."""
        query = self.query
        document = {
            'id': query.id,
            'order': self.order,
            'image': self.image,
            'text': query.text,
            'prompt': self.prompt,
            'truth': [mask.to_coco() for mask in query.truth],
            'ignore': query.ignore.to_coco() if query.ignore is not None else None,
            'groups': query.groups,
            'true_phrases': query.phrases,
            'masks': [mask.to_coco() for mask in self.masks],
            'scores': self.scores,
            'answer': self.answer,
            'phrases': self.phrases,
            'named': self.named,
            'timings_ms': {name: round(value, 3) for name, value in self.timings_ms.items()},
            'error': self.error,
        }
        text = json.dumps(document, separators=(',', ':'))
        return f'{text[:-1]}{CHECK}{zlib.crc32(text.encode()):08x}"}}'

    @classmethod
    def from_line(cls, line):
        """Of bytes. Raises ValueError where that is no line of ours, or was changed since."""
        text, _, check = line.strip().rpartition(CHECK.encode())
        if check != b'%08x"}' % zlib.crc32(text + b'}'):
            raise ValueError('its checksum does not fit')
        raw = json.loads(text + b'}')
        query = Query(
            id=raw['id'],
            text=raw['text'],
            truth=tuple(map(Rle.from_checked, raw['truth'])),
            ignore=Rle.from_checked(raw['ignore']) if raw['ignore'] else None,
            groups=raw['groups'],
            phrases=tuple(raw['true_phrases']),
        )
        return cls(
            order=tuple(raw['order']),
            image=raw['image'],
            query=query,
            prompt=raw['prompt'],
            masks=tuple(map(Rle.from_checked, raw['masks'])),
            scores=tuple(raw['scores']),
            answer=raw['answer'],
            phrases=tuple(raw['phrases']),
            named=raw['named'],
            timings_ms=raw['timings_ms'],
            error=raw['error'],
        )
