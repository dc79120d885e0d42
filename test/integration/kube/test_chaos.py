"""Anything happens in any order, and then both agree: who lived through it, and who starts now.

People and kubelets do one thing after another at random, while the way to the API server breaks at
random. A view that was kept up to date through all of it must be that of a fresh start.
"""

import asyncio
import random

import pytest

from epp.testing.kube_manifests import (
    CURRENT,
    LEGACY,
    model,
    objective,
    old_pool,
    pod,
    pool,
    rewrite,
    rule,
)
from epp.testing.kube_world import HASTY, PAGED
from epp.testing.seen_request import is_list, is_watch

STEPS = 80
LABELS = ({"app": "x"}, {"app": "y"}, {"app": "x", "tier": "gpu"})
SELECTORS = ({"app": "x"}, {"tier": "gpu"}, {"app": "y"})
GROUPS = (CURRENT, LEGACY)


class Chaos:
    """Does one thing after another."""

    def __init__(self, people, faults, seed):
        self._people = people
        self._faults = faults
        self._random = random.Random(seed)
        self._things = (
            *(self._pod,) * 8,
            *(self._pool,) * 2,
            *(self._model,) * 3,
            self._objective,
            self._rewrite,
            *(self._fault,) * 3,
        )

    async def step(self):
        await self._random.choice(self._things)()

    async def _pod(self):
        draw = self._random
        name, ip = f"pod-{draw.randrange(6)}", f"10.0.0.{draw.randrange(1, 4)}"
        if draw.random() < 0.25:
            await self._people.delete(pod(name))
        else:
            ready = draw.random() < 0.8
            await self._people.put(pod(name, ip, labels=draw.choice(LABELS), ready=ready))

    async def _pool(self):
        draw = self._random
        made = draw.choice((pool, pool, old_pool))
        if draw.random() < 0.3:
            await self._people.delete(made())
        else:
            port = draw.choice((8000, 9000))
            ports = {"port": port} if made is old_pool else {"ports": (port, port + 1)}
            await self._people.put(made(selector=draw.choice(SELECTORS), **ports))

    async def _model(self):
        draw = self._random
        number = draw.randrange(4)
        to = draw.choice(("pool", "pool", "other"))
        made = model(f"m{number}", f"name-{number % 2}", pool=to)
        await (self._people.delete(made) if draw.random() < 0.3 else self._people.put(made))

    async def _objective(self):
        draw = self._random
        made = objective(
            f"o{draw.randrange(2)}", draw.randrange(9), api_version=draw.choice(GROUPS)
        )
        await (self._people.delete(made) if draw.random() < 0.3 else self._people.put(made))

    async def _rewrite(self):
        draw = self._random
        made = rewrite(
            f"r{draw.randrange(2)}", rule(f"t{draw.randrange(9)}"), api_version=draw.choice(GROUPS)
        )
        await (self._people.delete(made) if draw.random() < 0.3 else self._people.put(made))

    async def _fault(self):
        faults, draw = self._faults, self._random
        match draw.randrange(8):
            case 0:
                faults.cut_watches(clean=draw.random() < 0.5)
            case 1:
                faults.answer(410, times=3, match=is_watch)
                faults.cut_watches()
            case 2:
                faults.answer(500, times=4)
            case 3:
                faults.truncate_watches(times=2)
            case 4:
                faults.expire_watches(times=3)
                faults.cut_watches()
            case 5:
                faults.delay(0.05, match=is_list)
            case 6:
                await faults.refuse_connections()
            case _:
                await faults.clear()


def view(world):
    known = world.datastore.pool_get()
    return (
        known,
        world.endpoints,
        world.models,
        world.objectives,
        world.target_of("any"),
    )


@pytest.mark.parametrize("settings", [HASTY, PAGED], ids=["streamed", "paged"])
@pytest.mark.parametrize("seed", range(2))
async def test_whoever_lived_through_it_knows_what_a_fresh_start_knows(
    make_world, people, faults, settings, seed
):
    await people.put(pool(), pod("pod-0"))
    chaos = Chaos(people, faults, seed)
    async with make_world(faults.url, settings=settings) as old:
        for _ in range(2):
            for _ in range(STEPS // 2):
                await chaos.step()
            await faults.clear()
            async with make_world() as fresh:
                await fresh.idle()
                await agree(old, fresh)
    assert len(old.journal.lines) > 5


async def agree(old, fresh):
    """Wait until both views are the same, and stay so for a while of nothing happening."""
    await old.until(lambda: view(old) == view(fresh), what="the views to agree")
    for _ in range(3):
        await asyncio.gather(old.idle(), fresh.idle())
    assert view(old) == view(fresh)
