"""The example manifests are valid, commented, and fit together."""

from collections import Counter
from pathlib import Path

import pytest

from epp.sources.manifest_set import ManifestSet
from epp.sources.validation import ManifestValidator
from epp_api.core_v1 import Pod, pod_is_ready
from epp_api.meta import labels_match
from epp_api.v1.inferencepool_types import InferencePool
from epp_api.v1alpha2.inferencemodel_types import InferenceModel
from epp_api.v1alpha2.inferencemodelrewrite_types import InferenceModelRewrite
from epp_api.v1alpha2.inferenceobjective_types import InferenceObjective

SAMPLES = Path(__file__).parents[4] / "config" / "samples"
NOW = "2026-01-01T00:00:00Z"


def loaded(checker: ManifestValidator, name: str) -> list[object]:
    manifests = ManifestSet(checker)
    manifests.put_file(name, (SAMPLES / name).read_bytes())
    change = manifests.resolve(NOW)
    assert [str(problem) for problem in change.problems] == []
    return list(change.objects.values())


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_sample_is_valid_and_opens_with_a_comment(checker: ManifestValidator, path: Path) -> None:
    assert loaded(checker, path.name)
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(("name", "pods"), [("quickstart.yaml", 2), ("data-parallel-pool.yaml", 2)])
def test_the_pods_of_a_sample_belong_to_its_pool(
    checker: ManifestValidator, name: str, pods: int
) -> None:
    objects = loaded(checker, name)

    [pool] = [obj for obj in objects if isinstance(obj, InferencePool)]
    selected = [
        obj
        for obj in objects
        if isinstance(obj, Pod)
        and labels_match(pool.spec.selector.match_labels, obj.metadata.labels)
    ]
    assert len(selected) == pods
    assert all(pod_is_ready(pod) for pod in selected)


def test_the_models_of_the_quickstart_show_a_split_and_criticality(
    checker: ManifestValidator,
) -> None:
    objects = loaded(checker, "quickstart.yaml")

    [pool] = [obj for obj in objects if isinstance(obj, InferencePool)]
    models = [obj for obj in objects if isinstance(obj, InferenceModel)]
    assert {model.spec.pool_ref.name for model in models} == {pool.metadata.name}
    assert [[t.weight for t in model.spec.target_models] for model in models] == [[95, 5], []]
    assert Counter(str(model.spec.criticality) for model in models) == {
        "Critical": 1,
        "Sheddable": 1,
    }


def test_objectives_and_rewrites_belong_to_the_pool_of_the_quickstart(
    checker: ManifestValidator,
) -> None:
    pools = [obj for obj in loaded(checker, "quickstart.yaml") if isinstance(obj, InferencePool)]
    objects = loaded(checker, "objectives-and-rewrites.yaml")

    [pool] = pools
    objectives = [obj for obj in objects if isinstance(obj, InferenceObjective)]
    rewrites = [obj for obj in objects if isinstance(obj, InferenceModelRewrite)]
    references = [obj.spec.pool_ref for obj in objectives]
    references += [obj.spec.pool_ref for obj in rewrites]
    assert {(ref.group, ref.name) for ref in references if ref is not None} == {
        (pool.api_version.partition("/")[0], pool.metadata.name)
    }
    assert {obj.metadata.name: obj.priority for obj in objectives} == {
        "nightly": -5,
        "interactive": 10,
    }
    assert [[t.weight for t in rule.targets] for obj in rewrites for rule in obj.spec.rules] == [
        [95, 5]
    ]
