"""A VLM client without a server: a function from the chat to the text of the reply."""

import asyncio
import json

from instructsam.train.vlm.client import Reply, _with_value


class ScriptedVlm:
    """Replies with `answer(messages)`; keeps the chats. An answer that is an exception is raised."""

    def __init__(self, answer):
        self.answer = answer
        self.chats = []

    async def ask(self, messages, schema=None, *, time_limit_s=None):
        await asyncio.sleep(0)
        self.chats.append(messages)
        answer = self.answer(messages)
        if isinstance(answer, Exception):
            raise answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return _with_value(Reply(text, prompt_tokens=100, completion_tokens=10), schema)

    async def aclose(self):
        pass


def asked_questions(messages):
    """Return the questions of a request of stage objects."""
    return json.loads(messages[1].parts[2].text)['questions']
