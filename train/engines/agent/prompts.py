"""Prompts of the agent, in our own words: the paper's baseline has others, which are not part of this project."""

import hashlib

SYSTEM = """\
You find objects in an image for a person who describes them in a query. You do not draw: a tool outlines objects \
for you, and you decide which outlines answer the query.

Every reply is a few sentences of reasoning, followed by exactly one tool call in this form and nothing after it:
<tool>{"name": "...", "parameters": {...}}</tool>
The result of the call comes in the next message.

Tools:
- segment_phrase, parameters {"text_prompt": "red mug"}. It outlines every object that the phrase names and shows \
the image with numbered masks. It replaces all earlier masks, so one phrase has to cover all targets. A phrase is a \
short noun phrase in the singular: a kind of object, if needed with its colour, material or shape. Leave out \
articles, counts, positions, comparisons and text that is printed on things: the tool does not understand them. A \
phrase works once.
- examine_each_mask, parameters {}. It looks at every mask by itself, removes those that do not answer the query \
and numbers the others anew. Use it when there are many masks or when they overlap.
- select_masks_and_return, parameters {"final_answer_masks": [1, 3]}. It ends the task with these masks. The \
numbers are those of the newest image with masks.
- report_no_mask, parameters {}. It ends the task: the image has nothing that the query asks for. Be sure before \
you use it.

Rules:
1. Find out what the person wants, and keep it apart from things that are only named to describe it. In "the cup \
beside the kettle" the cup is the target.
2. A query can mean one object or several, and can have small mistakes. Follow its sense.
3. The first call is segment_phrase, unless it is plain that nothing fits.
4. If a phrase finds nothing or the wrong things, try another: a synonym, a more general kind, or what the thing \
looks like.
5. Compare each numbered mask with the same place in the first image, which has no masks. Masks tint what is below \
them.
6. There is no number above the one that the message states. Two numbers side by side can look like a larger one.
7. Select all masks that are targets and no others.
"""

CHECK_SYSTEM = """\
You decide about a single mask. A person described objects in an image in a query, and a tool outlined one thing in \
it. You get the image, the image with this one outline, and closer views of it: at the left its surroundings with a \
box, at the right the outline. Decide if the outlined thing is what the query asks for, or one of the things it \
asks for. The outline need not be exact, but it has to be about the right thing as a whole. Something that the \
query names only to describe its target is not the target.

Give your reasons in two or three sentences. Then end with one of
<verdict>Accept</verdict>
<verdict>Reject</verdict>
"""

ANOTHER_VERDICT = 'Your reply has to end with either <verdict>Accept</verdict> or <verdict>Reject</verdict>, not both.'

OLD_IMAGE = '(The image with these masks is no longer shown.)'


def first_text(query: str, failed: tuple[str, ...]) -> str:
    """Return the text below the image in the first message.

    Args:
        query: The query, quoted as it is.
        failed: Phrases that did not lead to an answer; their results are no longer shown.
    """
    text = f'This is the image, without masks. The query: {query!r}'
    if failed:
        text += f'\nThese phrases did not help and cannot be used again: {_listed(failed)}.'
    return text


def found_text(phrase: str, count: int, query: str) -> str:
    """Return the text below the image with the masks of a phrase."""
    return (
        f'{phrase!r} found {count} mask{"s" * (count > 1)}, numbered from 1 to {count} in this image. There are two '
        f'images now: the one without masks and this one. The query is still {query!r}. Compare each mask with the '
        'first image, then call a tool.'
    )


def examined_text(kept: int, removed: int, query: str) -> str:
    """Return the text below the image with the masks that the examination left."""
    return (
        f'{removed} mask{"s were" if removed != 1 else " was"} removed. {kept} remain{"s" * (kept == 1)}, numbered '
        f'anew from 1 to {kept} in this image. The query is still {query!r}. Call a tool.'
    )


def nothing_found_text(phrase: str) -> str:
    """Return the message after a phrase without masks."""
    return f'{phrase!r} found nothing. Try another phrase, such as a synonym or a more general kind of object.'


def all_removed_text(phrase: str) -> str:
    """Return the message after an examination that removed all masks."""
    return f'None of the masks of {phrase!r} answers the query; all were removed. Try another phrase.'


def used_text(phrase: str, used: tuple[str, ...]) -> str:
    """Return the message after a phrase that was used before."""
    return f'{phrase!r} was used before. Use a phrase that is not among these: {_listed(used)}.'


def check_text(query: str) -> str:
    """Return the text of the question about one mask."""
    return f'The query: {query!r}. The first image has no masks, the second the outline, the third the closer views.'


def prompts_hash() -> str:
    """Return 16 hexadecimal digits that change with any prompt, for the header of a run."""
    texts = (
        SYSTEM,
        CHECK_SYSTEM,
        ANOTHER_VERDICT,
        OLD_IMAGE,
        first_text('q', ('a', 'b')),
        found_text('p', 2, 'q'),
        examined_text(1, 2, 'q'),
        nothing_found_text('p'),
        all_removed_text('p'),
        used_text('p', ('a',)),
        check_text('q'),
    )
    return hashlib.sha256('\0'.join(texts).encode()).hexdigest()[:16]


def _listed(phrases: tuple[str, ...]) -> str:
    return ', '.join(map(repr, phrases))
