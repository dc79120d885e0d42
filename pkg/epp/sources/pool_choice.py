"""Which pool this process serves."""

from collections.abc import Sequence

from epp.errors import ConfigError
from epp.sources.caches import SourceCaches
from epp_api.meta import NamespacedName


def choose_pool(
    caches: SourceCaches,
    *,
    name: str,
    namespace: str | None,
    broken: Sequence[str] = (),
) -> NamespacedName:
    """Decide on the pool.

    Args:
        caches: Synced.
        name: ``--pool-name``; empty takes the only pool there is.
        namespace: ``--pool-namespace`` when it was given.
        broken: Pools that cannot be used as they stand now. Without a name there is no telling
            whether one of them is meant.

    Raises:
        ConfigError: No name was given, and there is no pool, more than one, or a broken one.
    """
    keys = [key for key in caches.pool_keys() if namespace is None or key.namespace == namespace]
    if name:
        named = [key for key in keys if key.name == name]
        if len(named) > 1:
            raise ConfigError(
                "is in several namespaces, name one with --pool-namespace",
                source="--pool-name",
                value=", ".join(str(key) for key in named),
            )
        # A pool that does not exist yet may come later: serving starts then.
        return named[0] if named else NamespacedName(namespace or "default", name)
    if broken:
        raise ConfigError(
            f"an InferencePool cannot be used ({', '.join(broken)}, see above); mend it, or name"
            " the pool to serve with --pool-name"
        )
    if len(keys) == 1:
        return keys[0]
    if not keys:
        raise ConfigError(
            "there is no InferencePool here; name the one to wait for with --pool-name"
        )
    listed = ", ".join(str(key) for key in keys)
    raise ConfigError(
        f"there are {len(keys)} InferencePools, choose one with --pool-name: {listed}"
    )
