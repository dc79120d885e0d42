"""Credentials: the Authorization header of the next request, kept fresh.

``authorization`` is asked before every request and is cheap unless something has expired. When
the server answers 401, ``reject`` forgets what was sent, and says whether asking again may give
something better. Every class here is owned by one client and one event loop.
"""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, assert_never

from epp.kube.client_certificate import ClientCertificate
from epp.kube.connection_settings import (
    Anonymous,
    AuthProvider,
    ExecPlugin,
    Identity,
    StaticAuthorization,
    TokenFile,
)
from epp.kube.exec_plugin import CredentialsError, ExecCredential, run_exec_plugin
from epp.kube.workqueue import Backoff
from epp.logs import get_logger

log = get_logger(__name__)

TOKEN_FILE_SECONDS = 10.0
"""How long a token from a file is used before the file is read again; client-go's value."""

AUTH_PROVIDER_SECONDS = 60.0
"""How long a provider's token is used before its expiry is looked at again."""

EXPIRY_MARGIN_SECONDS = 10.0
"""A plugin's token is renewed this long before it expires: a request takes its time too."""

EXEC_SECONDS = 60.0
"""A plugin may have to ask an identity provider; longer than this it hangs."""

EXEC_BACKOFF = Backoff(first_seconds=1.0, max_seconds=60.0)
"""How long a plugin that failed is left alone: a second, doubling."""

EXEC_REJECT_SECONDS = 10.0
"""A token that is refused so soon after the plugin gave it is not replaced: it would be the same."""


class Credentials(Protocol):
    """Who we are to the API server."""

    @property
    def certificate(self) -> ClientCertificate | None:
        """A certificate that the credentials bring themselves, known after ``authorization``."""
        ...

    async def authorization(self) -> str:
        """The header's value; empty sends none. Raises CredentialsError."""
        ...

    def reject(self, authorization: str) -> bool:
        """The server refused this value. True when there may be a better one now."""
        ...

    async def close(self) -> None:
        """Nothing is asked any more: end what runs. Idempotent."""
        ...


class FixedCredentials:
    """What never changes.

    Args:
        header: The Authorization header's value; empty sends none.
    """

    certificate: ClientCertificate | None = None

    def __init__(self, header: str = "") -> None:
        self._header = header

    async def authorization(self) -> str:
        """The header."""
        return self._header

    def reject(self, _authorization: str) -> bool:
        """There is no other."""
        return False

    async def close(self) -> None:
        """Nothing runs."""


class TokenFileCredentials:
    """A token that is read from a file again and again, because the kubelet rotates it.

    A file that cannot be read any more is logged once; the last token is used as long as the
    server takes it.

    Args:
        path: The file.
        clock: Monotonic seconds.
    """

    certificate: ClientCertificate | None = None

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._header = ""
        self._fresh_until = float("-inf")
        self._readable = True

    async def authorization(self) -> str:
        """The header, from a file that was read at most ``TOKEN_FILE_SECONDS`` ago."""
        if self._clock() >= self._fresh_until:
            self._read()
        return self._header

    def reject(self, authorization: str) -> bool:
        """Read the file again. True when somebody has written another token."""
        if authorization == self._header:
            try:
                self._read()
            except CredentialsError:
                return False
        return authorization != self._header

    async def close(self) -> None:
        """Nothing runs."""

    def _read(self) -> None:
        try:
            token = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            self._keep_last(exc.strerror if isinstance(exc, OSError) else "is not text", exc)
        else:
            if token.isprintable() and token:
                self._header = f"Bearer {token}"
                self._readable = True
            else:
                self._keep_last("does not hold a token" if token else "is empty", None)
        self._fresh_until = self._clock() + TOKEN_FILE_SECONDS

    def _keep_last(self, problem: str | None, cause: Exception | None) -> None:
        if not self._header:
            raise CredentialsError(f"token file {self._path}: {problem}") from cause
        if self._readable:
            self._readable = False
            log.warning("token file cannot be read", file=str(self._path), error=problem)


class ExecCredentials:
    """Credentials of a plugin, which runs when they are needed and not more often.

    Whoever asks while it runs waits for that run. After a failure it is left alone for a while, and
    whoever asks meanwhile is told of the failure. A run that nobody waits for any more goes on: the
    next request will want what it brings.

    Args:
        plugin: What to run.
        clock: Monotonic seconds.
        wall_clock: Unix seconds, for the expiry that the plugin names.
        timeout_seconds: How long one run may take.
        draw: Uniform in [0, 1), for jitter.
    """

    def __init__(
        self,
        plugin: ExecPlugin,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        timeout_seconds: float = EXEC_SECONDS,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._plugin = plugin
        self._clock = clock
        self._wall_clock = wall_clock
        self._timeout_seconds = timeout_seconds
        self._draw = draw
        self._credential: ExecCredential | None = None
        self._given_at = float("-inf")
        self._run: asyncio.Task[ExecCredential | None] | None = None
        self._failure = ""
        self._failures = 0
        self._wait_until = float("-inf")

    @property
    def certificate(self) -> ClientCertificate | None:
        """The certificate of the last run."""
        return None if self._credential is None else self._credential.certificate

    async def authorization(self) -> str:
        """The header; runs the plugin when there is none, or when it expires."""
        credential = self._credential
        if credential is None or self._expired(credential):
            credential = await self._fresh()
        return _bearer(credential)

    def reject(self, authorization: str) -> bool:
        """Forget what the plugin gave, unless it just did: it would give the same again."""
        if self._credential is None or _bearer(self._credential) != authorization:
            return True
        if self._clock() - self._given_at < EXEC_REJECT_SECONDS:
            return False
        self._credential = None
        return True

    async def close(self) -> None:
        """End a run."""
        if self._run is not None:
            self._run.cancel()
            await asyncio.wait((self._run,))

    async def _fresh(self) -> ExecCredential:
        if self._run is None:
            if self._clock() < self._wait_until:
                raise CredentialsError(self._failure)
            self._run = asyncio.create_task(self._run_plugin(), name="exec plugin")
        run = self._run
        await asyncio.wait((run,))  # unlike the task itself it can be cancelled alone
        if run.cancelled():
            raise CredentialsError(f"exec plugin {self._plugin.command} was ended")
        credential = run.result()
        if credential is None:
            raise CredentialsError(self._failure)
        return credential

    async def _run_plugin(self) -> ExecCredential | None:
        try:
            credential = await run_exec_plugin(self._plugin, timeout_seconds=self._timeout_seconds)
        except CredentialsError as exc:
            self._failure = str(exc)
            self._failures += 1
            delay = EXEC_BACKOFF.delay_seconds(self._failures, self._draw())
            self._wait_until = self._clock() + delay
            return None
        else:
            self._failures = 0
            self._credential, self._given_at = credential, self._clock()
            return credential
        finally:
            self._run = None

    def _expired(self, credential: ExecCredential) -> bool:
        if credential.expires_at is None:
            return False
        return self._wall_clock() >= credential.expires_at - EXPIRY_MARGIN_SECONDS


class AuthProviderCredentials:
    """A token of an ``auth-provider`` of the kubeconfig; ``kubernetes.aio`` knows how to get it.

    Args:
        provider: Its name and parameters.
        clock: Monotonic seconds.
    """

    certificate: ClientCertificate | None = None

    def __init__(
        self, provider: AuthProvider, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._header = ""
        self._fresh_until = float("-inf")
        # The loader writes refreshed tokens into this document, and finds them there next time.
        self._document = _one_user_document(provider)

    async def authorization(self) -> str:
        """The header; asks the provider when the token has expired."""
        if self._clock() >= self._fresh_until:
            self._header = await self._load()
            self._fresh_until = self._clock() + AUTH_PROVIDER_SECONDS
        return self._header

    def reject(self, authorization: str) -> bool:
        """Look at the expiry again. True when another token was there already."""
        self._fresh_until = float("-inf")
        return authorization != self._header

    async def close(self) -> None:
        """Nothing runs."""

    async def _load(self) -> str:
        from kubernetes.aio.client import Configuration
        from kubernetes.aio.config import load_kube_config_from_dict

        configuration = Configuration()
        name = f"auth-provider {self._provider.name}"
        try:
            await load_kube_config_from_dict(  # type: ignore[no-untyped-call]  # no annotations
                self._document, client_configuration=configuration
            )
        except Exception as exc:
            # The text may quote the provider's answer; the class is all that is safe to show.
            raise CredentialsError(f"{name} gives no token ({type(exc).__name__})") from exc
        return str(configuration.api_key.get("BearerToken", ""))


def credentials_for(identity: Identity) -> Credentials:
    """Make the credentials of a client."""
    match identity:
        case Anonymous():
            return FixedCredentials()
        case StaticAuthorization():
            return FixedCredentials(identity.header)
        case TokenFile():
            return TokenFileCredentials(identity.path)
        case ExecPlugin():
            return ExecCredentials(identity)
        case AuthProvider():
            return AuthProviderCredentials(identity)
        case _:
            assert_never(identity)


def _bearer(credential: ExecCredential) -> str:
    return f"Bearer {credential.token}" if credential.token else ""


def _one_user_document(provider: AuthProvider) -> dict[str, object]:
    user = {"auth-provider": {"name": provider.name, "config": dict(provider.config)}}
    return {
        "current-context": "us",
        "contexts": [{"name": "us", "context": {"cluster": "us", "user": "us"}}],
        "clusters": [{"name": "us", "cluster": {"server": "http://localhost"}}],
        "users": [{"name": "us", "user": user}],
    }
