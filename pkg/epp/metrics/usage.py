"""TokenUsage: what a model server says a response cost."""

from msgspec import Struct


class TokenUsage(Struct, frozen=True, kw_only=True):
    """Token counts of one response; zero means that the server did not say.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens generated.
        cached_tokens: Prompt tokens found in a prefix cache; None when not reported.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
