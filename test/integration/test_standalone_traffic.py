"""What flows between Envoy, the EPP and the pods in standalone mode: addresses, TLS, token counts."""

import asyncio
import contextlib
import functools
import json
import signal
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
import pytest_asyncio

from epp.standalone import local_http
from epp.testing.stack import Sims, Stack, eventually, free_port

pytestmark = [pytest.mark.envoy]


async def test_nothing_listens_beyond_loopback_unless_the_user_says_so(tmp_path):
    async with (
        Sims(1, first="127.0.51.1", arguments=["--model", "tiny"]) as sims,
        Stack(tmp_path, "--endpoint", f"{sims.addresses[0]}:{sims.port}") as stack,
    ):
        children = [stack.pid_of("serve"), stack.pid_of("envoy")]

        listening = [address for pid in children if pid for address in _listening(pid)]

    assert len(listening) >= 5
    assert [address for address in listening if not address.is_loopback] == []


@pytest.mark.parametrize("address", ["::1", "0.0.0.0", "::"])
async def test_the_epp_serves_on_the_address_that_the_user_names(tmp_path, address):
    async with Sims(1, first="127.0.52.1", arguments=["--model", "tiny"]) as sims:
        endpoint = f"{sims.addresses[0]}:{sims.port}"
        arguments = ["--endpoint", endpoint, "--bind-address", address]
        admin, metrics, gateway = free_port(), free_port(), free_port()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "epp", "standalone", *arguments),
            *("--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", str(metrics)),
            *("--port", str(gateway), "--admin-port", str(admin)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        contact = "127.0.0.1" if address == "0.0.0.0" else "::1"
        try:
            up = functools.partial(local_http.answers, "127.0.0.1", admin, "/ready")
            await eventually(up, seconds=30, what="Envoy")
            reply = await _complete(gateway)
            pool = await local_http.get_json(contact, metrics, "/debug/pool")
        finally:
            process.send_signal(signal.SIGINT)
            await process.wait()

    assert reply.status == 200
    assert pool["totals"]["routed"] == 1


@pytest.mark.parametrize("path", ["lean", "gateway"])
async def test_with_tls_between_envoy_and_the_epp_requests_are_picked(tmp_path, path):
    async with Sims(1, first="127.0.53.1", arguments=["--model", "tiny"]) as sims:
        arguments = ["--endpoint", f"{sims.addresses[0]}:{sims.port}", "--path", path]
        async with Stack(tmp_path, *arguments, "--secure-serving") as stack:
            replies = [await _complete(stack.port) for _ in range(5)]
            handshakes = await stack.envoy_stat("cluster.epp.ssl.handshake")
            without = await stack.envoy_stat("http.gateway.ext_proc.failure_mode_allowed")
            routed = (await stack.pool())["totals"]["routed"]

    assert [reply.status for reply in replies] == [200] * 5
    assert handshakes >= 1
    assert (routed, without) == (5, 0)


PROMPT = "Tell me about the pods of this pool. " * 40
USAGE_CASES = [
    pytest.param("completions", {"prompt": PROMPT, "max_tokens": 5}, id="completion"),
    pytest.param(
        "chat/completions",
        {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 6},
        id="chat",
    ),
    pytest.param("responses", {"input": PROMPT, "max_output_tokens": 7}, id="responses"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def counting(tmp_path_factory):
    """A lean gateway in front of one pod: a prompt that comes again is in its prefix cache."""
    async with Sims(1, first="127.0.54.1", arguments=["--model", "tiny", "--speed", "20"]) as sims:
        endpoint = f"{sims.addresses[0]}:{sims.port}"
        async with Stack(tmp_path_factory.mktemp("usage"), "--endpoint", endpoint) as stack:
            yield stack


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize(("api", "body"), USAGE_CASES)
async def test_on_the_lean_path_tokens_are_counted_as_the_server_tells_them(
    counting, api, body, stream
):
    if stream:
        body = {**body, "stream": True}
    if stream and api != "responses":
        body["stream_options"] = {"include_usage": True}
    await _post(counting.port, api, body)
    before = await eventually(functools.partial(_settled, counting), what="the first report")

    reply = await _post(counting.port, api, body)

    told = _told_usage(reply.body)
    want = [old + new for old, new in zip(before, (1, *told), strict=True)]
    await eventually(lambda: _has_counts(counting, want), what=f"counts {want}")
    assert all(number > 0 for number in told), "prompt, completion and cached tokens"


async def _complete(port):
    return await _post(port, "completions", {"model": "tiny", "prompt": "x", "max_tokens": 1})


async def _post(port, api, body):
    data = json.dumps({"model": "tiny", **body}).encode()
    headers = {"content-type": "application/json"}
    path = f"/v1/{api}"
    return await local_http.request("127.0.0.1", port, "POST", path, headers=headers, body=data)


def _told_usage(body):
    """Prompt, completion and cached tokens, by the word of the server."""
    text = body.decode()
    if "data: " not in text:
        usage = json.loads(text)["usage"]
    else:
        events = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
        last = json.loads(events[-1])
        usage = last.get("response", last)["usage"]
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    return (
        usage.get("prompt_tokens") or usage["input_tokens"],
        usage.get("completion_tokens") or usage["output_tokens"],
        details["cached_tokens"],
    )


async def _counts(stack):
    """How many replies told their tokens, and the sums of what they told."""
    names = (
        "inference_model_input_tokens_count",
        "inference_model_input_tokens_sum",
        "inference_model_output_tokens_sum",
        "inference_objective_prompt_cached_tokens_sum",
    )
    return [await stack.metric(name) for name in names]


async def _settled(stack):
    """The counts, once every routed request was reported."""
    counts = await _counts(stack)
    routed = (await stack.pool())["totals"]["routed"]
    return counts if counts[0] == routed else None


async def _has_counts(stack, want):
    return await _counts(stack) == want


def _listening(pid):
    """Addresses on which a process listens."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(entry.readlink().name)
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[index] for index in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in inodes:
                found.append(_address(local.partition(":")[0]))
    return found


def _address(text):
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    address = ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address
