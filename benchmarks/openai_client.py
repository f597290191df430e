"""The openai client by itself, on its aiohttp transport: the yardstick for our own cost per request.

python -m benchmarks.openai_client '{"url": "http://127.0.0.1:8000/v1", "requests": 20000, "lanes": 512}'
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import openai

from benchmarks.drive import Drive
from benchmarks.questions import MAX_TOKENS, MODEL, request


async def _main(spec: dict[str, Any]) -> dict[str, Any]:
    drive = Drive(spec["requests"])
    limits = openai.DefaultAioHttpClient()
    client = openai.AsyncOpenAI(base_url=spec["url"], api_key="none", max_retries=0, http_client=limits)

    async def ask(number: int, _: int) -> None:
        asked = request(number)
        messages: Any = asked.messages
        completion = await client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=MAX_TOKENS, temperature=0.7, top_p=0.95, seed=asked.sent_seed
        )
        assert completion.choices[0].message.content

    async with client:
        await drive.run(range(spec["requests"]), spec["lanes"], ask)
    return drive.figures()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(json.loads(sys.argv[1])))))
