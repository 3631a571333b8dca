"""Where the images of a set lie, found by the names of a few of them; and an image's size from its header."""

import os
from pathlib import Path

from PIL import Image

from instructsam.train.data.record_fields import RecordError

PLACES = ('', 'images', 'train2014', 'images/train2014', 'images/mscoco/images/train2014')  # the last is REFER's
LOOKED_FOR = 16  # images, or a few more: all of them may be 100,000
ORIENTATION, ON_ITS_SIDE = 0x112, (5, 6, 7, 8)  # of EXIF


class Pictures:
    """The folder where a set's image paths start, and how many leading folders of theirs are too many."""

    def __init__(self, names, folders):
        """names: all paths, as annotations have them; folders: where to look, the first is taken if none has any."""
        names = list(dict.fromkeys(name for name in names if name))
        tried = names[:: max(1, len(names) // LOOKED_FOR)]
        found = (place for name in tried for place in _places(name, folders) if os.path.isfile(_join(*place, name)))
        self._folder, self._dropped = next(found, (folders[0], 0))

    def path(self, name):
        """The file of an image path, whether it is there or not."""
        return _join(self._folder, self._dropped, name)


def _places(name, folders):
    absolute = [Path('/')] if name.startswith('/') else []
    for dropped in range(len(_parts(name))):
        for folder in (*absolute, *folders):
            yield folder, dropped


def _join(folder, dropped, name):
    parts = _parts(name)
    return folder.joinpath(*parts[min(dropped, len(parts) - 1) :])


def _parts(name):
    """Folders and file of a path that may be Windows', and may start above the data."""
    return [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')] or ['.']


def picture_size(path):
    """(height, width) px of an image, upright as its EXIF tag says, from the file's header. Raises RecordError."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            # without the first condition a PNG would be read whole in search of the tag
            on_its_side = 'exif' in file.info and file.getexif().get(ORIENTATION) in ON_ITS_SIDE
    except Exception as error:  # on broken files Pillow raises SyntaxError, ValueError, struct.error, ...
        raise RecordError(f'the image cannot be read: {error}') from error
    return (width, height) if on_its_side else (height, width)
