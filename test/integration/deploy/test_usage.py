"""What the README of ``config/`` tells users to write and to run works."""

import re
import shutil

import pytest
import yaml

BASE = "https://git.example.com/endpoint-picker//"


@pytest.fixture
def documented(root, tmp_path):
    """The kustomization of the README, with our tree in place of a repository and a demo pool."""
    config = root / "config"
    (block,) = re.findall(r"```yaml\n(.*?)```", (config / "README.md").read_text("utf-8"), re.S)
    here = tmp_path / "mine"
    shutil.copytree(config, tmp_path / "config")
    here.mkdir()
    local = re.sub(re.escape(BASE) + r"(\S+)\?ref=\S+", r"../\1", block)
    (here / "kustomization.yaml").write_text(local)
    parts = [
        (config / "demo" / f"{name}.yaml").read_text()
        for name in ("inference_pool", "model_servers")
    ]
    (here / "pool.yaml").write_text("---\n".join(parts).replace("sim-pool", "llama-8b"))
    return here


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
