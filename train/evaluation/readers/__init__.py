"""The benchmarks' files as Scenes: `read(benchmark, data, split)`.

roborefit, inst2seg, grefcoco, refcoco, reasonseg, gseval   a reader each: its layouts, and which one a folder has
referring   expressions on COCO's images, which grefcoco and refcoco share
outlines    outlines with labels as masks, which reasonseg has
records     a record as a Query, its masks, and what is wrong with it
files       the request, and annotation files by their names
images      where a set's images lie, and their sizes
documents   JSON and JSON Lines
pickles     pickled values without running what a pickle asks for

A benchmark comes in its original layout, or converted as the authors of InstructSAM do it. One broken record is one
Query with an `error`; what concerns the whole set is a DataError.
"""

from pathlib import Path

from instructsam.core.errors import DataError
from instructsam.train.evaluation.readers import grefcoco, gseval, inst2seg, reasonseg, refcoco, roborefit
from instructsam.train.evaluation.readers.files import Request
from instructsam.train.evaluation.running.gc_pause import no_collection

READERS = {
    'roborefit': roborefit, 'inst2seg': inst2seg, 'grefcoco': grefcoco, 'refcoco': refcoco, 'reasonseg': reasonseg,
    'gseval': gseval,
}  # fmt: skip


def read(benchmark, data, split, images=None, split_by=None):
    """The Scenes of a split in the order of its files, one an image.

    data: a folder, or an annotation file; images: the folder where image paths start, if it is another one; split_by:
    whose splits of RefCOCO, unc, google or umd. Images are opened only for their sizes, where annotations do not say
    them. Raises DataError.
    """
    data, images = Path(data), None if images is None else Path(images)
    if not data.exists():
        raise DataError(f'there is no {data}. --data is the folder of {benchmark}, or its annotation file')
    if images is not None and not images.is_dir():
        raise DataError(f'there is no folder {images}. --images is the folder of the images of {benchmark}')
    request = Request(benchmark, data, split, READERS[benchmark].LAYOUTS, images, split_by)
    if split not in request.splits:
        raise DataError(f'{benchmark} has no split {split!r}; its splits are {", ".join(request.splits)}')
    with no_collection():
        return READERS[benchmark].read(request)
