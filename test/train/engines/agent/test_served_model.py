"""A server by others, `transformers serve`, with a random tiny LLaVA: real image parts in, noise out."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('fastapi', reason='needs the extra `test`')
pytest.importorskip('uvicorn', reason='needs the extra `test`')

from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen3Config,
)

from instructsam.core import builtin
from instructsam.train.engines.agent.backends import PhraseImage
from instructsam.train.engines.agent.engine import AgentEngine
from instructsam.train.engines.agent.state import Limits
from instructsam.train.vlm.chat import Message
from instructsam.train.vlm.client import VlmClient
from instructsam.train.vlm.errors import VlmRefused
from instructsam.train.vlm.settings import VlmSettings

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
IMAGE_TOKENS = 64
START_S = 240
TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{{ '<image>' if part['type'] in ('image', 'image_url') else part['text'] }}{% endfor %}{% endif %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


def write_llava(folder):
    """Write a LLaVA of two small layers for each side, with the tokenizer of the built-in model."""
    tokenizer = AutoTokenizer.from_pretrained(builtin.folder('tabletop', ''))
    tokenizer.add_special_tokens({'additional_special_tokens': ['<image>']})
    layers = {'hidden_size': 64, 'intermediate_size': 128, 'num_hidden_layers': 2, 'num_attention_heads': 4}
    ids = {'eos_token_id': tokenizer.eos_token_id, 'pad_token_id': tokenizer.pad_token_id}
    text = {'num_key_value_heads': 2, 'head_dim': 16, 'vocab_size': len(tokenizer), 'max_position_embeddings': 32768}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**layers, image_size=112, patch_size=14),
        text_config=Qwen3Config(**layers, **text, **ids),
        image_token_index=tokenizer.convert_tokens_to_ids('<image>'),
        image_seq_length=IMAGE_TOKENS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={'shortest_edge': 112}, crop_size={'height': 112, 'width': 112}),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy='default',
        num_additional_image_tokens=1,
        image_token='<image>',
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """Start the server and yield its URL and the name of its model."""
    folder = tmp_path_factory.mktemp('llava')
    write_llava(folder)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    command = [Path(sys.executable).with_name('transformers'), 'serve', folder, '--device', 'cpu', '--port', port]
    environment = {**os.environ, 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    process = subprocess.Popen(
        [*command, '--host', '127.0.0.1'],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines, ready = [], threading.Event()

    def read():
        for line in process.stderr:
            lines.append(line)
            if 'Uvicorn running' in line:
                ready.set()
        ready.set()  # it has ended

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(START_S)
        assert process.poll() is None, ''.join(lines)
        yield f'http://127.0.0.1:{port}/v1', str(folder)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(10)


@pytest.fixture
def client(served, monkeypatch):
    for name in ('http_proxy', 'all_proxy', 'HTTP_PROXY', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    url, model = served
    client = VlmClient(VlmSettings(url, model, max_tokens=12, timeout_s=120))
    yield client
    client.close()


def test_images_arrive(client):
    plain = client.ask_now([Message.of('user', 'what is it?')])
    seen = client.ask_now([Message.of('user', IMAGE, 'what is it?')])
    assert seen.prompt_tokens - plain.prompt_tokens >= IMAGE_TOKENS
    assert (seen.completion_tokens, seen.finish_reason) == (12, 'length')
    assert client.ask_now([Message.of('user', IMAGE, 'what is it?')]).text == seen.text


def test_noise_ends_with_the_limit_of_repairs(client):
    class Nothing:
        def encode(self, image):
            return PhraseImage(*image.shape[:2], None)

    engine = AgentEngine(client, Nothing(), Limits(repairs=2))
    result = engine.segment(engine.encode(IMAGE), 'the red mug')
    assert (result.finish_reason, result.status) == ('repair_budget', 'error')
    assert result.usage['rounds'] == 3
    assert result.usage['prompt_tokens'] > 3 * IMAGE_TOKENS


def test_another_model_is_refused(served):
    url, _ = served
    other = VlmClient(VlmSettings(url, 'another', retries=0))
    with pytest.raises(VlmRefused, match="the model 'another'"):
        other.ask_now([Message.of('user', 'hello')])
    other.close()
