"""The site of the documentation: its first page is the README, and links lead to pages and files of the site."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip('mkdocs', reason='needs the extra docs')

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location('pages', ROOT / 'scripts/site/pages.py')
pages = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pages)


def converted(uri, markdown):
    page = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
    return pages.on_page_markdown(markdown, page=page, config=None, files=None)


@pytest.mark.parametrize(
    ('uri', 'markdown', 'expected'),
    [
        ('index.md', '![x](docs/demo.png)', '![x](demo.png)'),
        ('index.md', '[node](docs/node.md#qos)', '[node](node.md#qos)'),
        ('index.md', 'programs in [`examples/`](examples).', 'programs in `examples/`.'),
        ('node.md', '[the README](../README.md)', '[the README](index.md)'),
        ('node.md', '[errors](../core/errors.py)', '[errors](core/errors.py)'),
        ('node.md', '[a [b] c](#qos) [web](https://example.org/a)', '[a [b] c](#qos) [web](https://example.org/a)'),
        ('node.md', '```\n[x](../README.md)\n```\n', '```\n[x](../README.md)\n```\n'),
        ('core/pretrained/tabletop/README.md', '[e](../../../docs/experiments.md)', '[e](../../../experiments.md)'),
    ],
)
def test_links(uri, markdown, expected):
    assert converted(uri, markdown) == expected


def test_anchors_are_those_of_github():
    assert pages.slug('What is *read*, and `when`', '-') == 'what-is-read-and-when'


def test_every_document_is_in_the_navigation():
    navigation = set(re.findall(r'^\s*- (?:api/)?([\w/]+\.md)$', (ROOT / 'mkdocs.yml').read_text(), re.MULTILINE))
    assert {path.name for path in (ROOT / 'docs').glob('*.md')} | set(pages.OUTSIDE) - {'README.md'} <= navigation


def test_the_modules_of_the_api_exist():
    modules = re.findall(r'\b(instructsam(?:_ros)?\.[\w.]+)', (ROOT / 'mkdocs.yml').read_text())
    folders = {'instructsam.core': 'core', 'instructsam.train': 'train', 'instructsam_ros': 'instructsam_ros'}
    for module in modules:
        top = next(name for name in folders if module == name or module.startswith(f'{name}.'))
        path = ROOT / folders[top] / module.removeprefix(top).strip('.').replace('.', '/')
        assert path.is_dir() or path.with_suffix('.py').is_file(), module
