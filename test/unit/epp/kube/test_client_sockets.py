import asyncio
import socket

import pytest

from epp.kube.client_sockets import ClientSockets

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))


async def test_it_waits_until_the_last_socket_is_closed():
    sockets = ClientSockets(end_seconds=60)
    first, second = sockets.make(ADDRESS), sockets.make(ADDRESS)

    waiting = asyncio.create_task(sockets.end())
    first.close()
    await asyncio.sleep(0)
    assert not waiting.done()
    second.close()

    await asyncio.wait_for(waiting, 10)


async def test_it_does_not_wait_where_nothing_is_open():
    sockets = ClientSockets(end_seconds=60)
    sockets.make(ADDRESS).close()

    waiting = asyncio.create_task(sockets.end())
    await asyncio.sleep(0)

    assert waiting.done()


async def test_it_gives_up_on_a_socket_that_nobody_closes():
    sockets = ClientSockets(end_seconds=0.01)

    with sockets.make(ADDRESS) as kept:
        await asyncio.wait_for(sockets.end(), 10)

        assert kept.fileno() != -1


@pytest.fixture
def silent_server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


async def test_the_end_reaches_both_sides_of_a_connection(silent_server):
    sockets = ClientSockets(end_seconds=60)
    host, port = silent_server.getsockname()
    ours = sockets.make((socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)))
    ours.connect((host, port))
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs, _ = silent_server.accept()

    with theirs:
        ending = asyncio.create_task(sockets.end())
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await asyncio.wait_for(ending, 10)
        assert theirs.recv(1) == b""
