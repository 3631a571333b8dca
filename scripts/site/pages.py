"""MkDocs hook: pages that lie outside docs/, links as the repository has them, and pages of the API.

The documents are written for the repository: README.md is the first page, and links lead to files beside or above
docs/. Here each of these files becomes a part of the site, so that every link can be checked and nothing exists twice.
Why not a plugin: those for other folders copy documents or keep the links as they are.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')
"""Documents in the root of the repository."""

LINK = re.compile(r'\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)')
CODE = re.compile(r'^```.*?^```', re.DOTALL | re.MULTILINE)


def on_config(config):
    """Form anchors of headings as GitHub does."""
    config.mdx_configs['toc'] = {**config.mdx_configs.get('toc', {}), 'slugify': slug}
    return config


def slug(heading, separator):
    """Return GitHub's anchor of a heading."""
    return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', separator)


def on_files(files, *, config):
    """Add the documents outside docs/, every file that a document links to, and the pages of the API."""
    waiting = [*OUTSIDE, *(posixpath.join('docs', file.src_uri) for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if files.get_file_from_path(site_path(path)) is None:
            files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
        if path.endswith('.md'):
            linked = {target for target, _ in links(path, (ROOT / path).read_text()) if (ROOT / target).is_file()}
            waiting += linked - seen
            seen |= linked
    for page, entry in config.extra['api'].items():
        content = [f'# {entry["title"]}', *(f'::: {module}' for module in entry['modules'])]
        files.append(File.generated(config, f'api/{page}.md', content='\n\n'.join(content) + '\n'))
    return files


def on_page_markdown(markdown, *, page, config, files):
    """Lead links within the repository to pages and files of the site; those to folders become plain text."""
    source = source_path(page.file.src_uri)

    def replaced(match):
        text, link = match.groups()
        target, anchor = resolve(source, link)
        if target is None:
            return match.group()
        if (ROOT / target).is_dir():
            return text
        relative = posixpath.relpath(site_path(target), posixpath.dirname(page.file.src_uri) or '.')
        return f'[{text}]({relative}{anchor})'

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(replaced, markdown[end : code.start()]), code.group()]
        end = code.end()
    return ''.join([*parts, LINK.sub(replaced, markdown[end:])])


def links(path, markdown):
    """Yield the path in the repository and the anchor of every link in a document that leads to a file or folder."""
    for _, link in LINK.findall(CODE.sub('', markdown)):
        target, anchor = resolve(path, link)
        if target is not None:
            yield target, anchor


def resolve(path, link):
    """Return the path in the repository that a link in the document `path` leads to, and its anchor.

    The path is None if the link leads elsewhere, or to the document itself.
    """
    name, hash_sign, anchor = link.partition('#')
    if not name or re.match(r'\w+:', link):
        return None, ''
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name)), hash_sign + anchor


def site_path(path):
    """Return the place in the site of a file in the repository: those in docs/ come to the top."""
    return 'index.md' if path == 'README.md' else path.removeprefix('docs/')


def source_path(uri):
    """Return the path in the repository of a page of the site."""
    if uri == 'index.md':
        return 'README.md'
    return f'docs/{uri}' if (ROOT / 'docs' / uri).exists() else uri
