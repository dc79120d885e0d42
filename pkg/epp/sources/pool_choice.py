"""Which pool this process serves."""

from epp.errors import ConfigError
from epp.sources.caches import SourceCaches
from epp_api.meta import NamespacedName


def choose_pool(caches: SourceCaches, *, name: str, namespace: str | None) -> NamespacedName:
    """Decide on the pool.

    Args:
        caches: Synced.
        name: ``--pool-name``; empty takes the only pool there is.
        namespace: ``--pool-namespace`` when it was given.

    Raises:
        ConfigError: No name was given, and there is no pool or more than one.
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
