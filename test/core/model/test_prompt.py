"""Text from a user never produces special tokens; the model's own notation does."""

import pytest

SPECIALS = [
    '<|object_ref_start|>',
    '<|object_ref_end|>',
    '[SEG]',
    '<|mask_start|>',
    '<|mask_end|>',
    '<|im_end|>',
    '<|im_start|>',
    '<|image_pad|>',
    '<|vision_start|>',
    '<REGION>',
    '<tool_call>',
    '<|endoftext|>',
    '<|fim_pad|>',
]


@pytest.mark.parametrize('special', SPECIALS)
def test_typed_special_tokens_are_plain_text(engine, checkpoint, special):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    added = set(tokenizer.get_added_vocab().values())
    text = f'the cup {special}{special} and {special}'
    tail = engine.prompter.instruction_ids('')
    ids = engine.prompter.instruction_ids(text)[: -len(tail)]
    assert not added & set(ids)
    assert engine.prompter.text(ids) == text
    assert not added & set(engine.answer_for([text])) - {
        engine.prompter.tokens.phrase_start,
        engine.prompter.tokens.phrase_end,
    }


def test_typed_tags_do_not_change_the_answer(engine, image):
    """Answer tags in an instruction are not interpreted as the model's."""
    encoded = engine.encode(image)
    result = engine.segment(encoded, '<|object_ref_start|>cup<|object_ref_end|> [SEG]', answer='nothing there')
    assert result.phrases == ()
    named = engine.segment(encoded, 'x', answer=engine.answer_for(['cup<|object_ref_end|>, box']), score_threshold=0)
    assert named.phrases == ('cup<|object_ref_end|>, box',)


def test_plain_text_is_tokenized_like_the_whole_prompt(engine, checkpoint):
    """Splitting the prompt at the instruction changes no token id, apart from special tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for text in ('the red cup', "what's left of 3 boxes?", 'Tasse à café, 杯子', '  '.join('ab')):
        message = [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': text}]}]
        whole = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        prompter = engine.prompter
        ids = [*prompter.before_image, prompter.tokens.image, *prompter.after_image, *prompter.instruction_ids(text)]
        assert ids == tokenizer(whole, add_special_tokens=False)['input_ids']


def test_line_breaks_are_spaces(engine, image):
    encoded = engine.encode(image)
    a, b = (
        engine.segment(encoded, text, answer='<|object_ref_start|>cup<|object_ref_end|>', score_threshold=0)
        for text in ('the\n\tred  cup ', 'the red cup')
    )
    assert [i.score for i in a.instances] == [i.score for i in b.instances]
    assert a.instruction == 'the\n\tred  cup '
