"""Chat templates: rendered as by transformers, and ended when they exceed a limit."""

import pytest

from instructsam.core import ModelError
from instructsam.core.model import chat_template
from instructsam.core.model.chat_template import render_chat_template

MESSAGES = [
    {'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'ä "quoted" <text>'}]},
    {'role': 'assistant', 'content': 'yes'},
]


@pytest.fixture
def tokenizer(checkpoint):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.mark.parametrize('add_generation_prompt', [False, True])
@pytest.mark.parametrize(
    'template',
    [
        '',
        '{%- for m in messages %}\n  {% if m.role == "user" %}\n{{ m | tojson }}{% continue %}{% endif %}x{% endfor %}',
        '{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}{{ eos_token }}',
        '{% if tools %}{{ raise_exception("tools") }}{% endif %}{{ strftime_now("%%") }}{{ add_generation_prompt }}',
    ],
)
def test_the_text_is_that_of_transformers(tokenizer, template, add_generation_prompt):
    if template:
        tokenizer.chat_template = template
    own, theirs = (
        render(MESSAGES, add_generation_prompt=add_generation_prompt, **options)
        for render, options in (
            (lambda *args, **kwargs: render_chat_template(tokenizer, *args, **kwargs), {}),
            (tokenizer.apply_chat_template, {'tokenize': False}),
        )
    )
    assert own == theirs


ATTACKS = {
    'loops': ('{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}', 'signal'),
    'doubled text': (
        '{% set n = namespace(x="a") %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}',
        'memory',
    ),
    'padding': ('{{ "a" | center(10**11) }}', 'memory'),
    'power': ('{{ 9**(9**9) }}', 'signal'),
    'recursion': ('{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}', 'RecursionError'),
    'nesting': ('{{ ' + '(' * 5000 + '1' + ')' * 5000 + ' }}', 'RecursionError'),
    'long text': ('{{ "a" * 200000 }}', 'it gives 200000 characters'),
    'python': ('{{ "".__class__.__mro__[1].__subclasses__() }}', 'SecurityError'),
    'syntax': ('{% for', 'TemplateSyntaxError'),
    'own refusal': ('{{ raise_exception("only text\n is read") }}', 'TemplateError: only text'),
}


@pytest.mark.parametrize('kind', ATTACKS)
def test_attacks_end_as_a_model_error(tokenizer, kind, monkeypatch):
    monkeypatch.setattr(chat_template, 'MAX_CPU_S', 1)
    tokenizer.chat_template, reason = ATTACKS[kind]
    with pytest.raises(ModelError, match=f'chat template cannot be rendered: .*({reason})'):
        render_chat_template(tokenizer, MESSAGES)


def test_a_template_is_rendered_once(tokenizer, monkeypatch):
    text = render_chat_template(tokenizer, MESSAGES)
    monkeypatch.setattr(chat_template.subprocess, 'run', None)
    assert render_chat_template(tokenizer, MESSAGES) == text


def test_modules_in_the_current_folder_are_not_imported(tokenizer, tmp_path, monkeypatch):
    (tmp_path / 'jinja2.py').write_text('open("imported", "w")')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend('')
    tokenizer.chat_template = 'new {{ messages[0].role }}'
    assert render_chat_template(tokenizer, MESSAGES) == 'new user'
    assert not (tmp_path / 'imported').exists()
