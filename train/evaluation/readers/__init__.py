"""Readers of the benchmarks' files: `read_benchmark(benchmark, data, split)` returns images with their queries.

roborefit, inst2seg, grefcoco, refcoco, reasonseg, gseval   one reader each, with its file layouts
referring   expressions on COCO's images, shared by grefcoco and refcoco
outlines    labelled outlines as masks, for reasonseg
records     a record as a Query: its text, its masks, or the reason why it is broken
files       the data set to read, and annotation files by their names
images      the folder of a data set's images, and image sizes
documents   JSON and JSON Lines
pickles     pickled values, read without executing code

A benchmark comes in its original layout, or as the authors of InstructSAM convert it. A broken record becomes a Query
with an `error`; a problem of the whole data set is a DataError.
"""

from pathlib import Path

from instructsam.core.errors import DataError
from instructsam.train.evaluation.query import ImageQueries
from instructsam.train.evaluation.readers import grefcoco, gseval, inst2seg, reasonseg, refcoco, roborefit
from instructsam.train.evaluation.readers.formats.files import DatasetFiles
from instructsam.train.evaluation.running.gc_pause import gc_paused

READERS = {
    'roborefit': roborefit, 'inst2seg': inst2seg, 'grefcoco': grefcoco, 'refcoco': refcoco, 'reasonseg': reasonseg,
    'gseval': gseval,
}  # fmt: skip


def read_benchmark(
    benchmark: str,
    data: str | Path,
    split: str,
    images: str | Path | None = None,
    split_by: str | None = None,
) -> list[ImageQueries]:
    """Read the images of a split with their queries, in the order of the files.

    Images are opened only to read sizes that the annotations do not give.

    Args:
        benchmark: A key of READERS.
        data: The data set's folder, or an annotation file.
        split: Name of the split.
        images: Folder that image paths start at; None: found by the images' names.
        split_by: Authors of RefCOCO's splits: unc, google or umd.

    Raises:
        DataError: The data set is missing, broken, or in no known layout.
    """
    data, images = Path(data), None if images is None else Path(images)
    if not data.exists():
        raise DataError(f'there is no {data}. --data is the folder of {benchmark}, or its annotation file')
    if images is not None and not images.is_dir():
        raise DataError(f'there is no folder {images}. --images is the folder of the images of {benchmark}')
    files = DatasetFiles(benchmark, data, split, READERS[benchmark].LAYOUTS, images, split_by)
    if split not in files.splits:
        raise DataError(f'{benchmark} has no split {split!r}; its splits are {", ".join(files.splits)}')
    with gc_paused():
        return READERS[benchmark].read(files)
