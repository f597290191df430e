"""The Batch API of one endpoint, through the `openai` package: its only import, and only where `teacher.mode` is batch.

    async with connect_batches(endpoint) as api:
        file_id = await api.upload(data)
        batch = await api.create(file_id, marker)      # Batch, or FaultError
        batch = await api.look(batch.id)

Source: https://platform.openai.com/docs/api-reference/batch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2  # what openai talks through; it lets these errors pass while a file is read
import openai
from openai.types import Batch, FileObject

from jobs.generate import faults
from jobs.generate.endpoint import NO_KEY, Endpoint
from jobs.generate.faults import FaultError

__all__ = ["Batch", "BatchApi", "connect_batches"]

Found = TypeVar("Found")

SILENCE_S = 120.0
"""Longest silence of the endpoint within one exchange."""
CLOCKS_DIFFER_S = 3600.0
"""A batch is looked for among those that are so much older than its intent lines, by the endpoint's clock."""


@dataclass(frozen=True)
class BatchApi:
    """Files and batches of one endpoint; `connect_batches` makes it. Every method may raise a FaultError."""

    endpoint: Endpoint
    client: openai.AsyncOpenAI

    async def upload(self, data: bytes) -> str:
        """Upload an input file, and give its id."""
        with self._judged():
            found = await self.client.files.create(file=("cai.jsonl", data), purpose="batch")
            return self._checked(found, FileObject).id

    async def create(self, file_id: str, marker: dict[str, str]) -> Batch:
        """Create a batch with this metadata. Never tried again here: a second try may make a second batch."""
        with self._judged():
            once = self.client.with_options(max_retries=0)
            found = await once.batches.create(
                input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", metadata=marker
            )
            return self._checked(found, Batch)

    async def look(self, batch_id: str) -> Batch:
        """The batch as it is now."""
        with self._judged():
            return self._checked(await self.client.batches.retrieve(batch_id), Batch)

    async def find(self, marker: dict[str, str], since: float) -> Batch | None:
        """The batch with this metadata, made after `since` (seconds since the epoch), if there is one."""
        with self._judged():
            async for batch in self.client.batches.list(limit=100):
                if batch.metadata == marker:
                    return batch
                if batch.created_at < since - CLOCKS_DIFFER_S:
                    break
        return None

    async def lines(self, file_id: str) -> AsyncIterator[bytes]:
        """The lines of a file, one by one: it can have 200 MB."""
        with self._judged():
            async with self.client.files.with_streaming_response.content(file_id) as response:
                rest = b""
                async for part in response.iter_bytes():
                    *whole, rest = (rest + part).split(b"\n")
                    for line in whole:
                        yield line
                yield rest

    def _checked(self, found: Any, kind: type[Found]) -> Found:
        if not isinstance(found, kind):  # a web page with status 200, which openai gives back as text
            raise FaultError(faults.malformed(200, str(found).encode()))
        return found

    @contextmanager
    def _judged(self) -> Iterator[None]:
        endpoint = self.endpoint
        try:
            yield
        except openai.APIStatusError as error:
            said = error.response.content
            if endpoint.key != NO_KEY:  # some endpoints repeat the key they refuse
                said = said.replace(endpoint.key.encode(), b"[key]")
            judged = faults.classify(
                error.status_code, error.response.headers, said, model=endpoint.model, key_name=endpoint.key_name
            )
            raise FaultError(judged) from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            raise FaultError(faults.no_answer(error, sent=True)) from None
        except (openai.APIError, ValueError):
            raise FaultError(faults.malformed(200, b"")) from None


@asynccontextmanager
async def connect_batches(endpoint: Endpoint) -> AsyncIterator[BatchApi]:
    """Open the connections and close them at the end; nothing is asked yet."""
    async with openai.AsyncOpenAI(
        base_url=endpoint.base_urls[0],
        api_key=endpoint.key,
        max_retries=2,
        timeout=SILENCE_S,
        http_client=openai.DefaultAioHttpClient(),
    ) as client:
        yield BatchApi(endpoint, client)
