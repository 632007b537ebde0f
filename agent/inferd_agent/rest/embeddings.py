"""`POST /v1/embeddings` and `GET /v1/models`, as clients of OpenAI's interface speak them.

Texts become jobs of the normal scheduling, a few in flight for each request: a request of two thousand texts waits its
turns among others and fills no queue. All or nothing: the first failure ends the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

import numpy as np

from inferd.protocol.messages import encode
from inferd.protocol.openai import (
    EmbeddingsRequest,
    ModelEntry,
    ModelList,
    decode_embeddings,
    encode_embeddings,
    encode_error,
)
from inferd_agent.bridge import Bridge
from inferd_agent.embedding import Part, Tokenisers, pack, pool, rows_together
from inferd_agent.errors import BodyTooLarge
from inferd_agent.identity import require
from inferd_agent.rest.answers import Answer, json_answer
from inferd_agent.rest.bodies import Bodies
from inferd_agent.rest.call import Call
from inferd_agent.rest.headers import TIMEOUT
from inferd_agent.rest.routes import Endpoint, Target
from inferd_agent.views import spec_of
from inferd_runtime import Embedding, InvalidRequest, Job, ModelDescription, ModelSpec, State

Array = np.ndarray[Any, Any]
T = TypeVar("T")

MAX_BODY_BYTES = 8 << 20
_IN_FLIGHT = 8
# From so many values on, pooling and writing leave the loop.
_LONG_VALUES = 64 << 10
_LONG_BODY_BYTES = 256 << 10


class Embeddings:
    """Answers requests for embeddings. `allowed_ns` tells how long a request may take, given its time-out header."""

    def __init__(
        self, bridge: Bridge, bodies: Bodies, pool: Executor, *, allowed_ns: Callable[[str | None], int]
    ) -> None:
        self._bridge = bridge
        self._bodies = bodies
        self._pool = pool
        self._allowed_ns = allowed_ns
        self._tokenisers = Tokenisers()

    def table(self) -> dict[str, Endpoint]:
        """The paths."""
        return {
            "/v1/models": Endpoint("list", "GET", self.models, ("read", "infer")),
            "/v1/embeddings": Endpoint("embeddings", "POST", self.handle, ("infer",), spell=encode_error),
        }

    def close(self) -> None:
        """Free the thread; idempotent."""
        self._tokenisers.close()

    async def models(self, call: Call, target: Target) -> Answer:
        """The models that serve, by name."""
        runtime, sees = self._bridge.runtime, call.principal.sees
        names = sorted({each.name for each in runtime.models() if each.state is State.READY and sees(each.name)})
        return json_answer(encode(ModelList([ModelEntry(name) for name in names], names)))

    async def handle(self, call: Call, target: Target) -> Answer:
        """Tokenise, run, pool, write."""
        deadline_ns = time.monotonic_ns() + self._allowed_ns(call.message.headers.get(TIMEOUT))
        request = await self._read(call)
        require(call.principal, "infer", request.model)
        description, spec, embedding = self._embedder(request)
        texts = await self._tokenisers.ids(request.texts(), embedding)
        parts = pack(texts, spec, embedding, rows_together(description))
        found: dict[int, Array] = {}

        async def work() -> None:
            for part in parts:
                job = self._job(call, description, embedding, part, deadline_ns)
                found.update(zip(part.places, await self._run(job, part, embedding), strict=True))

        await _together([work() for _ in range(min(_IN_FLIGHT, len(texts)))])
        vectors = np.stack([found[place] for place in range(len(texts))])
        _check_dimensions(request, vectors.shape[1])
        tokens = sum(map(len, texts))
        if vectors.size < _LONG_VALUES:
            return json_answer(encode_embeddings(vectors, request, tokens))
        return json_answer(await self._off_loop(encode_embeddings, vectors, request, tokens))

    async def _read(self, call: Call) -> EmbeddingsRequest:
        body = await self._bodies.read(call)
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"the body has {len(body)} bytes, at most {MAX_BODY_BYTES} are taken for embeddings")
        if len(body) < _LONG_BODY_BYTES:
            return decode_embeddings(body)
        return await self._off_loop(decode_embeddings, body)

    def _embedder(self, request: EmbeddingsRequest) -> tuple[ModelDescription, ModelSpec, Embedding]:
        description = self._bridge.runtime.describe(request.model)
        spec = spec_of(description)
        if description.embedding is None:
            raise InvalidRequest(f"model {request.model!r} does not embed text: its model.toml has no [embedding]")
        size = next(each.shape[-1] for each in spec.outputs if each.name == description.embedding.output)
        _check_dimensions(request, size)
        return description, spec, description.embedding

    def _job(
        self, call: Call, description: ModelDescription, embedding: Embedding, part: Part, deadline_ns: int
    ) -> Job:
        return Job(
            description.name,
            part.inputs,
            version=description.version,
            outputs=(embedding.output,),
            deadline_ns=deadline_ns,
            priority=call.principal.priority,
            principal=call.principal.name,
            request_id=call.id,
        )

    async def _run(self, job: Job, part: Part, embedding: Embedding) -> Array:
        output = (await self._bridge.infer(job))[embedding.output]
        if output.size < _LONG_VALUES:
            return pool(output, part.mask, embedding)
        return await self._off_loop(pool, output, part.mask, embedding)

    async def _off_loop(self, act: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, act, *given)


async def _together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; the first that fails ends the others, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _check_dimensions(request: EmbeddingsRequest, size: int) -> None:
    """Refuse vectors of another size than the model's own; -1 is one that is not known yet."""
    if size >= 0 and request.dimensions not in (None, size):
        raise InvalidRequest(
            f"dimensions: model {request.model!r} gives {size}, which cannot be made {request.dimensions}"
        )
