"""What the README of ``config/`` tells users to write and to run works."""

import re
import shutil
import subprocess
import textwrap

import pytest
import yaml

from epp_api.meta import NamespacedName
from epp_cmd.kubernetes import lease_name

BASE = "https://git.example.com/endpoint-picker//"


@pytest.fixture
def documented(root, tmp_path):
    """The kustomization of the README, with our tree in place of a repository and a demo pool."""
    config = root / "config"
    kustomization, *_ = yaml_blocks(config)
    here = tmp_path / "mine"
    shutil.copytree(config, tmp_path / "config")
    here.mkdir()
    local = re.sub(re.escape(BASE) + r"(\S+)\?ref=\S+", r"../\1", kustomization)
    (here / "kustomization.yaml").write_text(local)
    parts = [
        (config / "demo" / f"{name}.yaml").read_text()
        for name in ("inference_pool", "model_servers")
    ]
    (here / "pool.yaml").write_text("---\n".join(parts).replace("sim-pool", "llama-8b"))
    return here


def yaml_blocks(config):
    """The YAML of the README in its order, those in lists too."""
    text = (config / "README.md").read_text("utf-8")
    found = re.findall(r"^( *)```yaml\n(.*?)^ *```$", text, re.S | re.M)
    return [textwrap.dedent(block) for _, block in found]


@pytest.fixture
def changed(documented):
    """The same kustomization with additions of the user: lists grow, all else is replaced."""
    path = documented / "kustomization.yaml"
    original = yaml.safe_load(path.read_text())

    def change(**additions):
        grown = {
            key: [*original.get(key, []), *value] if isinstance(value, list) else value
            for key, value in additions.items()
        }
        path.write_text(yaml.safe_dump({**original, **grown}))
        return documented

    return change


def block_with(config, word):
    """The one block of the README that holds a word, decoded."""
    (block,) = [block for block in yaml_blocks(config) if word in block]
    return yaml.safe_load(block)


def without_namespaces(problems):
    """What lint says besides that the namespace is the user's to make."""
    return [problem for problem in problems if "there is no Namespace" not in problem]


def test_the_example_of_the_readme_renders_and_holds_together(
    documented, overlays, kustomize, one, lint
):
    manifests = overlays.build(kustomize, documented)

    assert {problem.partition(": ")[2] for problem in lint(manifests)} == {
        "there is no Namespace llama"
    }
    (container,) = one(manifests, "Deployment", "llama-epp")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["args"][1:3] == ["--pool-name", "llama-llama-8b"]
    assert container["args"][-1] == "-v=3"
    assert container["image"].startswith("registry.example.com/endpoint-picker:")


@pytest.fixture
def pair(documented, changed, overlays, kustomize):
    """Two installations in one namespace, each with model servers of its own."""
    pool = (documented / "pool.yaml").read_text()

    def rendered(label=None):
        both = []
        for name in ("a", "b"):
            labels = yaml.safe_load(yaml.safe_dump([label] if label else []).replace("llama", name))
            here = changed(namespace="shared", namePrefix=f"{name}-", labels=labels)
            (here / "pool.yaml").write_text(pool.replace("modelsim", f"servers-{name}"))
            both += overlays.build(kustomize, here)
        return both

    return rendered


def test_two_installations_with_labels_share_a_namespace(pair, root, lint):
    (label,) = block_with(root / "config", "includeSelectors")["labels"]

    manifests = pair(label)

    assert without_namespaces(lint(manifests)) == []


def test_without_labels_each_would_meet_the_other(pair, lint):
    manifests = pair()

    text = "\n".join(lint(manifests))
    assert "Service a-epp picks the pods of Deployment shared/b-epp" in text
    assert "Service b-epp picks the pods of Deployment shared/a-epp" in text
    assert "PodDisruptionBudget shared/b-epp picks the pods of" in text


def test_the_label_of_an_installation_reaches_what_prometheus_selects(pair, root, one):
    (label,) = block_with(root / "config", "includeSelectors")["labels"]

    manifests = pair(label)

    for name in ("a", "b"):
        selector = one(manifests, "ServiceMonitor", f"{name}-epp")["spec"]["selector"]
        labels = one(manifests, "Service", f"{name}-epp")["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items()
        assert selector["matchLabels"]["app.kubernetes.io/instance"] == name


def test_the_role_of_leaders_narrowed_as_documented_names_their_lease(
    changed, root, overlays, kustomize, one, lint
):
    patch = block_with(root / "config", "resourceNames")
    here = changed(components=["../config/components/ha"], patches=patch)

    manifests = overlays.build(kustomize, here)

    deployment = one(manifests, "Deployment", "llama-epp")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    pool = NamespacedName("llama", arguments[arguments.index("--pool-name") + 1])
    (_, rule) = one(manifests, "Role", "llama-epp-leader-election")["rules"]
    assert rule["resourceNames"] == [lease_name(pool)]
    assert without_namespaces(lint(manifests)) == []

    rule["resourceNames"] = ["another"]
    assert any(f"has no Lease {lease_name(pool)}" in problem for problem in lint(manifests))


def test_behind_stock_istio_the_sleep_can_be_taken_away(changed, root, overlays, kustomize, one):
    patch = block_with(root / "config", "/lifecycle")
    here = changed(components=["../config/components/ha"], patches=patch)

    manifests = overlays.build(kustomize, here)

    deployment = one(manifests, "Deployment", "llama-epp")
    assert "lifecycle" not in deployment["spec"]["template"]["spec"]["containers"][0]


def test_the_readme_says_what_needs_a_newer_kubernetes(root, overlays, render):
    """``preStop.sleep`` is on by default since 1.30; nothing else here is younger than 1.27."""
    (sentence,) = re.findall(
        r"\*\*Kubernetes 1\.30 or newer\*\* for (.*?), because of `preStop\.sleep`",
        (root / "config" / "README.md").read_text("utf-8"),
        re.S,
    )

    needing = [
        set(combination.name.split("+"))
        for combination in overlays.combinations()
        if "'sleep'" in str(render(combination))
    ]
    named = set(re.findall(r"`([\w-]+)`", sentence))
    assert needing
    assert [parts for parts in needing if not parts & named] == []
    assert [name for name in named if not any(name in parts for parts in needing)] == []


@pytest.fixture
def in_a_cluster(root):
    """Commands of the section "In a cluster" of the tree's README."""
    text = (root / "README.md").read_text("utf-8")
    (commands,) = re.findall(r"## In a cluster\n\n```console\n(.*?)```", text, re.S)
    return commands


def test_the_kinds_are_waited_for_before_objects_of_them(in_a_cluster, root):
    steps = [
        "kubectl apply -k config/crd",
        "kubectl wait --for=condition=Established --timeout=60s -f config/crd/bases",
        "kubectl kustomize config/default",
    ]

    places = [in_a_cluster.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)
    assert steps[1] in (root / "Makefile").read_text("utf-8")


@pytest.mark.parametrize("overlay", ["default", "overlays/istio", "overlays/standalone"])
def test_the_image_that_users_push_is_the_one_that_their_pods_run(
    in_a_cluster, render, overlay, containers
):
    (pushed,) = re.findall(r"docker push (\S+)", in_a_cluster)
    (expression,) = re.findall(r"sed '(.*?)'", in_a_cluster)
    rendered = yaml.safe_dump_all(render(overlay=overlay), sort_keys=False)

    done = subprocess.run(
        ["sed", expression], input=rendered, capture_output=True, text=True, check=True
    )

    images = {c["image"] for c in containers(list(yaml.safe_load_all(done.stdout)))}
    assert f"docker build -t {pushed} ." in in_a_cluster
    assert {image for image in images if "envoy" not in image} == {pushed}


def test_the_readme_names_every_directory_and_component(root):
    config = root / "config"
    text = (config / "README.md").read_text("utf-8")

    listed = [*config.iterdir(), *(config / "components").iterdir()]
    names = [path.name for path in listed if path.is_dir()]
    overlays = [path.name for path in (config / "overlays").iterdir()]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert [name for name in overlays if f"**{name}**" not in text] == []


def test_every_file_is_part_of_some_combination(root):
    """No manifest is left out by a kustomization that forgot it."""
    config = root / "config"
    for kustomization in config.rglob("kustomization.yaml"):
        text = kustomization.read_text("utf-8")
        files = [p for p in kustomization.parent.glob("*.yaml") if p != kustomization]

        assert [file.name for file in files if file.name not in text] == []


def test_the_names_of_all_combinations_are_printed(overlays, capsys):
    status = overlays.main([])

    names = capsys.readouterr().out.splitlines()
    assert status == 0
    assert names == [combination.name for combination in overlays.combinations()]
    assert len(set(names)) == len(names)
    components = {path.name for path in (overlays.CONFIG / "components").iterdir()}
    alone = components - {"names", "standalone-envoy"}
    assert alone == {part for name in names for part in name.split("+")[1:]}


def test_a_combination_is_printed_as_manifests(overlays, capsys):
    status = overlays.main(["standalone"])

    kinds = [document["kind"] for document in yaml.safe_load_all(capsys.readouterr().out)]
    assert status == 0
    assert "ConfigMap" in kinds


def test_an_unknown_combination_is_named(overlays, capsys):
    status = overlays.main(["standalone+ha"])

    assert (status, capsys.readouterr().err) == (2, "no such combination: standalone+ha\n")


def test_what_kustomize_refuses_is_an_error_with_its_words(overlays, kustomize, tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [nowhere.yaml]\n")

    with pytest.raises(overlays.RenderError, match=r"nowhere\.yaml"):
        overlays.build(kustomize, tmp_path)
