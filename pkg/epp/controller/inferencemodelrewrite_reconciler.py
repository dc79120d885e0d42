"""InferenceModelRewrite: the rules that give requests another model name.

Level-based over the whole kind: which objects count depends on all of them, so the key says only
that something changed.
Reference: llm-d-router ebab687 pkg/epp/controller/inferencemodelrewrite_reconciler.go.
"""

from epp.controller.pool_objects import PoolObjects
from epp.datastore.datastore import Datastore
from epp.datastore.rewrite_store import matched_names, named_targets
from epp.kube.cache import ObjectCache
from epp.kube.controller import Result
from epp.logs import get_logger
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodelrewrite_types import (
    KIND,
    InferenceModelRewrite,
    InferenceModelRewriteRule,
)

log = get_logger(__name__)


class InferenceModelRewriteReconciler:
    """Keeps the datastore's rewrites those that count for the pool.

    Args:
        preferred: InferenceModelRewrites of ``llm-d.ai``.
        legacy: InferenceModelRewrites of the first API group.
        datastore: Written to.
    """

    def __init__(
        self,
        *,
        preferred: ObjectCache[InferenceModelRewrite],
        legacy: ObjectCache[InferenceModelRewrite],
        datastore: Datastore,
    ) -> None:
        self._objects = PoolObjects(KIND, preferred, legacy)
        self._datastore = datastore

    async def reconcile(self, _key: NamespacedName) -> Result:
        """Make the datastore agree with the caches. Without a pool no rewrite counts."""
        self.resync()
        return Result()

    def resync(self) -> None:
        """The same, for whoever has changed the pool."""
        pool = self._datastore.pool_get()
        counting = {} if pool is None else self._objects.counting(pool)
        for stored in self._datastore.rewrite_list():
            if stored.metadata.key not in counting:
                self._datastore.rewrite_delete(stored.metadata.key)
        for rewrite in counting.values():
            if self._datastore.rewrite_set(rewrite):
                _explain(rewrite)


def _explain(rewrite: InferenceModelRewrite) -> None:
    """Say once per version of an object which of its rules do less than they seem to."""
    for position, rule in enumerate(rewrite.spec.rules):
        for problem in _problems(rule):
            key = str(rewrite.metadata.key)
            log.warning("rewrite rule is incomplete", rewrite=key, rule=position, problem=problem)


def _problems(rule: InferenceModelRewriteRule) -> list[str]:
    problems = []
    targets = named_targets(rule)
    if not targets:
        problems.append("no targets, matching requests keep their model name")
    if any(t.weight is None for t in targets) and any(t.weight for t in targets):
        problems.append("targets without a weight beside weighted ones get no requests")
    if rule.matches and not matched_names(rule):
        problems.append("its matches name no model, it never applies")
    return problems
