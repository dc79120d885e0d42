import asyncio
import socket

from epp.testing.client_sockets import ClientSockets

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))


async def test_it_waits_until_the_last_socket_is_closed():
    sockets = ClientSockets(goodbye_seconds=60)
    first, second = sockets.make(ADDRESS), sockets.make(ADDRESS)

    waiting = asyncio.create_task(sockets.closed())
    first.close()
    await asyncio.sleep(0)
    assert not waiting.done()
    second.close()

    await asyncio.wait_for(waiting, 10)


async def test_it_does_not_wait_where_nothing_is_open():
    sockets = ClientSockets(goodbye_seconds=60)
    sockets.make(ADDRESS).close()

    waiting = asyncio.create_task(sockets.closed())
    await asyncio.sleep(0)

    assert waiting.done()


async def test_it_gives_up_on_a_peer_that_does_not_answer():
    sockets = ClientSockets(goodbye_seconds=0.01)

    with sockets.make(ADDRESS) as kept:
        await asyncio.wait_for(sockets.closed(), 10)

        assert kept.fileno() != -1
