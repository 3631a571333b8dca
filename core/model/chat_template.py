"""Renders the chat template of a model folder in another process, whose time and memory are limited.

A template is a program. Jinja's sandbox keeps it from running Python, but not from looping for years or filling the
memory with one expression. The template is rendered once per model, with placeholders for the texts, so that a process
of its own costs a fraction of a second per model and nothing per instruction.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from instructsam.core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_CHARS = 100_000  # limit of a template, and of a prompt that it renders; Qwen3-VL's template has 5,000
MAX_CPU_S = 5
MAX_MEMORY_BYTES = 512 << 20
MAX_WAIT_S = 60.0  # a process that waits for a CPU uses none

# The environment is that of transformers.utils.chat_template_utils, whose import would take seconds.
_PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({cpu_s}, {cpu_s}))
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import json
task = json.load(sys.stdin)
sys.path[:] = task['path']
import datetime
from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

class Generation(Extension):  # marks the assistant's text for training masks, which are not made here
    tags = {{'generation'}}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(['name:endgeneration'], drop_needle=True)

def raise_exception(message):
    raise TemplateError(message)

def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
)
environment.filters['tojson'] = tojson
environment.globals['raise_exception'] = raise_exception
environment.globals['strftime_now'] = lambda format: datetime.datetime.now().strftime(format)
try:
    text = environment.from_string(task['template']).render(**task['variables'])
    answer = {{'text': text}} if len(text) <= {chars} else {{'error': f'it gives {{len(text)}} characters'}}
except MemoryError:
    answer = {{'error': 'it needs too much memory'}}
except Exception as error:
    answer = {{'error': f'{{type(error).__name__}}: {{error}}'[:500]}}
print(json.dumps(answer))
"""


def render_chat_template(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], *, add_generation_prompt: bool = False
) -> str:
    """Return what the tokenizer's chat template makes of `messages`.

    Raises ModelError if there is no template, it cannot be rendered, or it exceeds a limit.
    """
    try:
        template = tokenizer.get_chat_template()
    except Exception as error:  # there is none, or several, none of them the default
        raise ModelError(
            f'the tokenizer has no chat template (chat_template.jinja in the model folder): {error}'
        ) from error
    if not isinstance(template, str) or len(template) > MAX_CHARS:
        raise ModelError(f'the chat template is not a text of at most {MAX_CHARS} characters')
    variables = {
        **{name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        'messages': messages,
        'tools': None,
        'documents': None,
        'add_generation_prompt': add_generation_prompt,
    }
    return _render(template, json.dumps(variables))


@lru_cache(maxsize=16)
def _render(template: str, variables: str) -> str:
    program = _PROGRAM.format(cpu_s=MAX_CPU_S, memory=MAX_MEMORY_BYTES, chars=MAX_CHARS)
    # Without the current folder, which may be that of the model.
    path = [folder for folder in sys.path if folder]
    task = json.dumps({'path': path, 'template': template, 'variables': json.loads(variables)})
    try:
        done = subprocess.run(
            [sys.executable, '-I', '-S', '-c', program],
            input=task.encode(),
            capture_output=True,
            timeout=MAX_WAIT_S,
            check=False,
            start_new_session=True,  # Control-C ends the caller, not the process that it waits for
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f'the chat template was not rendered within {MAX_WAIT_S:g} s') from error
    except OSError as error:
        raise ModelError(f'no process can be started to render the chat template: {error}') from error
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {'error': _reason(done)}
    if 'text' not in answer:
        raise ModelError(
            f'the chat template cannot be rendered: {answer["error"]}. It may use {MAX_CPU_S} s and '
            f'{MAX_MEMORY_BYTES >> 20} MB and give {MAX_CHARS} characters; take that of Qwen3-VL'
        )
    return str(answer['text'])


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return why the process ended without an answer."""
    if done.returncode < 0:  # the kernel's way to enforce a limit
        return f'it was ended by signal {-done.returncode} at the limit of its time or memory'
    lines = done.stderr.decode(errors='replace').strip().splitlines()
    return lines[-1][:500] if lines else f'its process ended with {done.returncode}'
