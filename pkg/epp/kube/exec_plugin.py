"""Run a credential plugin: a program that prints an ExecCredential.

The plugin gets a deadline, no terminal, and its error output is shown shortened, without anything
that looks like a secret. It runs in a session of its own: when it has to go, so do the processes
that it started. ``kubernetes.aio`` runs plugins too, but waits for ever for one that hangs, reads
its pipes one after the other and swallows its errors.
Reference: kubernetes.io, "client-go credential plugins" (documents and versions).
"""

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from epp.kube.client_certificate import ClientCertificate
from epp.kube.connection_settings import ExecPlugin
from epp.kube.foreign_text import without_secrets

API_VERSIONS = frozenset(
    {"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}
)

_SHOWN = 300


class CredentialsError(Exception):
    """There are no credentials to send; the text says why, without secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecCredential:
    """What a plugin printed.

    Attributes:
        token: Bearer token; empty when it gave a certificate only.
        certificate: Client certificate, or None.
        expires_at: Unix seconds, None when it lasts until it is refused.
    """

    token: str = field(default="", repr=False)
    certificate: ClientCertificate | None = None
    expires_at: float | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    status: _Status | None = None


async def run_exec_plugin(plugin: ExecPlugin, *, timeout_seconds: float) -> ExecCredential:
    """Run a plugin once.

    Raises:
        CredentialsError: It cannot be started, fails, takes too long, or prints something else.
    """
    name = f"exec plugin {plugin.command}"
    try:
        process = await _started(plugin)
    except (OSError, ValueError) as exc:
        hint = f"; {plugin.install_hint.strip()}" if plugin.install_hint else ""
        reason = exc.strerror if isinstance(exc, OSError) else "its arguments are not usable"
        raise CredentialsError(f"{name} cannot be started: {reason}{hint}") from exc
    try:
        async with asyncio.timeout(timeout_seconds):
            output, complaint = await process.communicate()
    except BaseException as exc:
        await _kill(process)
        if isinstance(exc, TimeoutError):
            text = f"{name} did not end within {timeout_seconds:g} s"
            raise CredentialsError(text) from exc
        raise
    if process.returncode != 0:
        raise CredentialsError(f"{name} ended with status {process.returncode}{_told(complaint)}")
    return _parse(name, plugin, output)


async def _started(plugin: ExecPlugin) -> asyncio.subprocess.Process:
    """Start the plugin. A cancellation waits for that: asyncio would kill the plugin alone."""
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.args,
            env={**plugin.env, "KUBERNETES_EXEC_INFO": _exec_info(plugin)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        ),
        name="exec plugin starts",
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError, ValueError):
            await _kill(await starting)
        raise


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End the plugin and what it started, also when only the latter keeps us waiting."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process that has left the session may hold the pipes, and asyncio would wait for it.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    await process.wait()


def _exec_info(plugin: ExecPlugin) -> str:
    spec: dict[str, object] = {"interactive": False}
    if plugin.cluster is not None:
        spec["cluster"] = plugin.cluster
    document = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    return msgspec.json.encode(document).decode()


def _told(complaint: bytes) -> str:
    text = without_secrets(complaint.decode(errors="replace"))
    line = " ".join(text.split())
    return f": {line[:_SHOWN]}" if line else ""


def _parse(name: str, plugin: ExecPlugin, output: bytes) -> ExecCredential:
    try:
        document = msgspec.json.decode(output, type=_Document)
    except msgspec.ValidationError as exc:
        raise CredentialsError(f"{name} printed no ExecCredential: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise CredentialsError(f"{name} printed something that is not JSON") from exc
    if document.kind != "ExecCredential" or document.api_version != plugin.api_version:
        got = f"{document.api_version[:80]} {document.kind[:80]}"
        raise CredentialsError(f"{name} printed {got}, not {plugin.api_version} ExecCredential")
    status = document.status or _Status()
    certificate = _certificate(name, status)
    token = (status.token or "").strip()
    if not token.isascii() or (token and not token.isprintable()):
        raise CredentialsError(f"{name}: status.token is not a token")
    if not token and certificate is None:
        raise CredentialsError(f"{name}: status has neither token nor clientCertificateData")
    expires = status.expiration_timestamp
    return ExecCredential(
        token=token,
        certificate=certificate,
        expires_at=None if expires is None else expires.timestamp(),
    )


def _certificate(name: str, status: _Status) -> ClientCertificate | None:
    if not status.client_certificate_data and not status.client_key_data:
        return None
    if not status.client_certificate_data or not status.client_key_data:
        raise CredentialsError(f"{name}: clientCertificateData and clientKeyData go together")
    return ClientCertificate(
        certificate=status.client_certificate_data.encode(), key=status.client_key_data.encode()
    )
