"""A load generator in a process of its own: N keep-alive connections, closed loop, one request shape.

Prints one JSON object. Loopback only; ends by itself.
"""

import argparse
import asyncio
import json
import sys
import time


async def connection(port: int, request: bytes, until: float, counts: dict[str, int]) -> None:
    """Send the same request again and again until the time is up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.monotonic() < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lowered = head.lower()
            status = head[9:12].decode()
            counts[status] = counts.get(status, 0) + 1
            at = lowered.find(b"content-length:")
            if at >= 0:
                length = int(lowered[at + 15 : lowered.index(b"\r\n", at)])
                await reader.readexactly(length)
            else:
                await read_chunks(reader, counts)
    finally:
        writer.close()


async def read_chunks(reader: asyncio.StreamReader, counts: dict[str, int]) -> None:
    """Read a chunked body; count the chunks."""
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        await reader.readexactly(size + 2)
        if size == 0:
            return
        counts["chunks"] = counts.get("chunks", 0) + 1


async def run(port: int, connections: int, seconds: float, body: bytes) -> dict[str, object]:
    """Run the load and return what happened."""
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    counts: dict[str, int] = {}
    began = time.monotonic()
    until = began + seconds
    request = head.encode() + body
    await asyncio.gather(*(connection(port, request, until, counts) for _ in range(connections)))
    return {"seconds": time.monotonic() - began, "counts": counts}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--prompt-bytes", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--stream", action="store_true")
    chosen = parser.parse_args()
    body = {"model": "tiny", "max_tokens": chosen.tokens, "prompt": "x" * chosen.prompt_bytes}
    if chosen.stream:
        body["stream"] = True
    data = json.dumps(body).encode()
    result = asyncio.run(run(chosen.port, chosen.connections, chosen.seconds, data))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
