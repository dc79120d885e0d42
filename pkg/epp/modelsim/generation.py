"""One OpenAI request in work: its sequences on the engine, its reply on the wire.

Owner of both until the reply is complete or the client is gone; then nothing of it stays on the
engine. Invariant: ``on_end`` is called exactly once.
"""

from collections.abc import Callable
from functools import partial

from epp.modelsim.engine import Engine
from epp.modelsim.http_message import Responder
from epp.modelsim.kv_cache import block_hashes, count_tokens
from epp.modelsim.openai_reply import (
    EVENT_STREAM,
    ChatShape,
    CompletionShape,
    ReplyHead,
    ReplyShape,
    Usage,
    embeddings_body,
    text_of,
    word,
)
from epp.modelsim.openai_request import Api, ApiError, ApiRequest
from epp.modelsim.openai_responses import ResponseShape
from epp.modelsim.sequence import Sequence


def plan_sequences(
    request: ApiRequest, *, adapter: str | None, block_size: int, capacity_tokens: int
) -> tuple[Sequence, ...]:
    """Make a sequence for each choice of each prompt.

    Raises:
        ApiError: A prompt with its output is longer than the engine can hold.
    """
    sequences = []
    for prompt in request.prompts:
        tokens = count_tokens(prompt)
        output = request.output_tokens
        if request.max_tokens is None and output:
            output = max(1, min(output, capacity_tokens - tokens))
        if tokens + output > capacity_tokens:
            raise ApiError(
                f"The longest context is {capacity_tokens} tokens; the prompt has {tokens} "
                f"and the output may have {output}.",
                param="max_tokens" if tokens < capacity_tokens else None,
            )
        hashes = block_hashes(prompt, block_size=block_size, adapter=adapter)
        sequences += [
            Sequence(
                prompt_tokens=tokens,
                output_tokens=output,
                hashes=hashes,
                adapter=adapter,
                finish_reason=request.finish_reason if output else "stop",
            )
            for _ in range(request.choices)
        ]
    return tuple(sequences)


class Generation:
    """Runs the sequences of a request and writes its reply."""

    def __init__(
        self,
        request: ApiRequest,
        sequences: tuple[Sequence, ...],
        head: ReplyHead,
        responder: Responder,
        *,
        on_end: Callable[[str], None],
        cut: bool = False,
    ) -> None:
        """Take everything; ``on_end`` gets the outcome, ``cut`` resets after the first token."""
        self._request = request
        self._sequences = sequences
        self._head = head
        self._shape = _shape(request, head)
        self._responder = responder
        self._on_end = on_end
        self._cut = cut
        self._left = len(sequences)

    def start(self, engine: Engine) -> None:
        """Send the head of a stream and queue the sequences."""
        self._responder.on_disconnect = partial(self._abort, engine)
        if self._request.stream:
            self._responder.start_stream(200, content_type=EVENT_STREAM)
        for index, sequence in enumerate(self._sequences):
            engine.submit(sequence, partial(self._advanced, index))

    def _advanced(self, index: int, sequence: Sequence) -> None:
        if self._request.stream:
            self._responder.write(self._events(index, sequence))
        if self._cut:
            self._responder.reset()
            return
        if sequence.is_over:
            self._left -= 1
            if not self._left:
                self._end()

    def _events(self, index: int, sequence: Sequence) -> bytes:
        position = sequence.generated - 1
        text = word(self._request.prompts[index // self._request.choices], position)
        reason = sequence.finish_reason if sequence.is_over else None
        event = self._shape.token_event(index, position, text, reason)
        return event if position else self._shape.first_event(index) + event

    def _end(self) -> None:
        usage = self._usage()
        if self._request.stream:
            self._responder.write(self._shape.last_events(self._outputs(), usage))
            self._responder.finish()
        elif self._request.api is Api.EMBEDDINGS:
            self._responder.send(200, embeddings_body(self._request, self._head, usage))
        else:
            self._responder.send(200, self._shape.body(self._outputs(), usage))
        self._on_end("finished")

    def _abort(self, engine: Engine) -> None:
        for sequence in self._sequences:
            engine.abort(sequence)
        self._on_end("faulted" if self._cut else "aborted")

    def _outputs(self) -> list[str]:
        choices = self._request.choices
        return [
            text_of(self._request.prompts[index // choices], sequence.generated)
            for index, sequence in enumerate(self._sequences)
        ]

    def _usage(self) -> Usage:
        per_prompt = self._sequences[:: self._request.choices]
        return Usage(
            prompt_tokens=sum(sequence.prompt_tokens for sequence in per_prompt),
            completion_tokens=sum(sequence.generated for sequence in self._sequences),
            cached_tokens=sum(sequence.cached_tokens for sequence in per_prompt),
        )


def _shape(request: ApiRequest, head: ReplyHead) -> ReplyShape:
    match request.api:
        case Api.CHAT:
            return ChatShape(request, head)
        case Api.RESPONSES:
            return ResponseShape(head)
        case Api.COMPLETIONS | Api.EMBEDDINGS:
            return CompletionShape(request, head)
