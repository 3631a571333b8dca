"""The folder of the small model: the shipped files are those that the code writes."""

from transformers import AutoTokenizer

from instructsam.core.builtin import FOLDER
from instructsam.train.weights.small_model import write_folder


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_shipped_files_are_those_that_the_code_writes(tmp_path):
    write_folder(tmp_path)
    shipped = files(FOLDER / 'tabletop')
    for not_written in ('model.safetensors', 'README.md'):
        del shipped[not_written]
    assert files(tmp_path) == shipped


def test_words_of_the_tabletop_world_are_single_tokens():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / 'tabletop', local_files_only=True)
    for text in ('red mug', 'two yellow bananas', 'leftmost knife', 'Please hand me the wooden spoon in the bowl.'):
        assert len(tokenizer.tokenize(text)) == len(text.split()) + text.count('.'), text
