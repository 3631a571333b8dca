"""The files that a bag consists of, each opened by its first bytes rather than by its name."""

import re
from pathlib import Path, PurePosixPath
from shlex import quote
from tempfile import TemporaryDirectory

from instructsam_ros.bag.storage import mcap_file, metadata, sqlite_file
from instructsam_ros.bag.storage.compression import ZSTD_MAGIC, decompress_file
from instructsam_ros.bag.storage.errors import RecordingError
from instructsam_ros.bag.storage.limits import Limits
from instructsam_ros.bag.storage.mcap_file import McapFile
from instructsam_ros.bag.storage.metadata import BagMetadata
from instructsam_ros.bag.storage.sqlite_file import SqliteFile

BAG_SUFFIXES = ('.mcap', '.db3')
ZSTD_SUFFIXES = ('.zstd', '.zst')
SUFFIXES = (*BAG_SUFFIXES, *(bag + zstd for bag in BAG_SUFFIXES for zstd in ZSTD_SUFFIXES))
PART = re.compile(r'(.*)_(\d+)')


def is_bag_file(path: Path) -> bool:
    """Return whether the name of `path` is that of a file of a bag, such as x.mcap or x.db3.zstd."""
    return path.name.endswith(SUFFIXES)


def bag_name(path: Path) -> str:
    """Return the name of a file of a bag without its ending."""
    return path.name.removesuffix(max((each for each in SUFFIXES if path.name.endswith(each)), key=len))


def is_bag(path: Path) -> bool:
    """Return whether `path` is a file of a bag, or a folder with metadata.yaml or files of a bag."""
    if path.is_dir():
        return (path / metadata.NAME).is_file() or any(is_bag_file(file) and file.is_file() for file in path.iterdir())
    return is_bag_file(path) and path.is_file()


def list_files(path: Path) -> tuple[list[Path], BagMetadata]:
    """Return the files of the bag at `path` in order, and its metadata, which are empty if it has none.

    Raises:
        RecordingError: There is no bag, or a file is missing.
    """
    if not path.exists():
        raise RecordingError(f'{path} does not exist; give a bag: a folder with metadata.yaml, .mcap or .db3')
    if path.suffix == '.bag' and path.is_file():
        raise RecordingError(
            f'{path} is a ROS 1 bag; `rosbags-convert --src {quote(str(path))} --dst {quote(path.stem)} '
            '--dst-typestore ros2_jazzy` makes a ROS 2 bag of it'
        )
    if not is_bag(path):
        raise RecordingError(
            f'{path} is not a bag: a folder with metadata.yaml, or a regular file ({", ".join(SUFFIXES)})'
        )
    if path.is_file():
        return [path], BagMetadata()
    if not (path / metadata.NAME).is_file():
        return _files_without_metadata(path)
    found = metadata.read_metadata(path)
    files = [_existing(path, name, found) for name in found.files]
    others = sorted(file.name for file in path.iterdir() if is_bag_file(file) and file not in files)
    if others:
        found.notes.append(f'metadata.yaml does not list {", ".join(others)}, which was not read')
    return files, found


def _existing(folder: Path, name: str, found: BagMetadata) -> Path:
    """Return the file `name` of the folder, or the same one after it was moved, compressed or decompressed."""
    for listed in dict.fromkeys((name, PurePosixPath(name).name)):
        base = listed.removesuffix('.zstd').removesuffix('.zst')
        for candidate in dict.fromkeys((listed, base, *(base + ending for ending in ZSTD_SUFFIXES))):
            if (folder / candidate).is_file():
                if candidate != name:
                    found.notes.append(f'metadata.yaml lists {name}, and {candidate} was read')
                return folder / candidate
    raise RecordingError(
        f'{folder / metadata.NAME} lists {name}, which is missing; copy it from where it was recorded, or write the '
        f'metadata of the other files with `ros2 bag reindex {folder}`'
    )


def _files_without_metadata(folder: Path) -> tuple[list[Path], BagMetadata]:
    """Return the only file of the folder, or the files NAME_0, NAME_1, ... of one recording."""
    files = [file for file in folder.iterdir() if is_bag_file(file) and file.is_file()]
    found = BagMetadata(notes=['metadata.yaml is missing'])
    if len(files) == 1:
        return files, found
    parts = {file: PART.fullmatch(bag_name(file)) for file in files}
    numbers = {int(part[2]): file for file, part in parts.items() if part}
    names = {part[1] if part else file.name for file, part in parts.items()}
    if len(names) == 1 and sorted(numbers) == list(range(len(files))):
        return [numbers[number] for number in sorted(numbers)], found
    raise RecordingError(
        f'{folder} has no metadata.yaml, and its files are not the parts 0, 1, ... of one recording '
        f'({", ".join(sorted(file.name for file in files))}); give one of them'
    )


class OpenFile:
    """A file of a bag, decompressed if it is compressed as a whole.

    Attributes:
        storage: Its messages.
        paths: The files that hold them.
        is_compressed: Whether it is compressed as a whole.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.paths = [path]
        self.is_compressed = _first_bytes(path).startswith(ZSTD_MAGIC)
        if not self.is_compressed:
            self.storage = _open_storage(path, limits, shown=path)
            if isinstance(self.storage, SqliteFile):
                self.paths = self.storage.files
            return
        # The file is deleted as soon as it is open, so that none is left when the process is killed.
        with TemporaryDirectory(prefix='instructsam-bag-') as folder:
            decompressed = Path(folder) / 'decompressed'
            decompress_file(path, decompressed, limits)
            self.storage = _open_storage(decompressed, limits, shown=path, keep_open=True)


def _open_storage(path: Path, limits: Limits, shown: Path, *, keep_open: bool = False) -> McapFile | SqliteFile:
    magic = _first_bytes(path)
    if magic.startswith(mcap_file.MAGIC):
        return McapFile(path, limits, shown, keep_open=keep_open)
    if magic.startswith(sqlite_file.MAGIC):
        return SqliteFile(path, limits, shown, keep_open=keep_open)
    if not magic:
        raise RecordingError(f'{shown} cannot be read as a bag (it is truncated to 0 bytes); copy it again')
    raise RecordingError(
        f'{shown} cannot be read as a bag (it begins like neither an MCAP nor an SQLite file); it may be compressed '
        'otherwise than with zstd, encrypted, or not a recording'
    )


def _first_bytes(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(16)
