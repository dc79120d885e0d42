import io
import re
import tarfile

import pytest

PROGRAMS = ("etcd", "kube-apiserver")
SHELL = "#!/bin/sh\necho version 7\n"


@pytest.fixture
def envtest(hack):
    return hack("envtest")


@pytest.fixture
def archive(tmp_path):
    """Write a .tar.gz; contents by path."""

    def write(**files):
        path = tmp_path / "archive.tar.gz"
        with tarfile.open(path, "w:gz") as packed:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                packed.addfile(member, io.BytesIO(text.encode()))
        return path

    return write


def layout(prefix, *names):
    return {f"{prefix}/{name}": SHELL for name in names or PROGRAMS}


def test_named_assets_are_taken(envtest, env, program, tmp_path, go):
    for name in PROGRAMS:
        program(tmp_path / "assets" / name, SHELL)

    found = envtest.provide({**env, "KUBEBUILDER_ASSETS": str(tmp_path / "assets")})

    assert found == tmp_path / "assets"
    assert go.calls == []


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        pytest.param([], "etcd and kube-apiserver", id="nothing"),
        pytest.param(["etcd"], "kube-apiserver", id="one"),
    ],
)
def test_named_assets_that_lack_a_program_are_an_error(
    envtest, env, program, tmp_path, there, missing
):
    for name in there:
        program(tmp_path / "assets" / name, SHELL)

    with pytest.raises(envtest.ToolError) as caught:
        envtest.provide({**env, "KUBEBUILDER_ASSETS": str(tmp_path / "assets")})

    text = str(caught.value)
    assert (
        text == f"KUBEBUILDER_ASSETS={tmp_path / 'assets'}: {missing} is not there, or no program"
    )


def test_a_file_that_cannot_be_run_is_no_program(envtest, env, program, tmp_path):
    for name in PROGRAMS:
        program(tmp_path / name, SHELL).chmod(0o644)

    with pytest.raises(envtest.ToolError, match="KUBEBUILDER_ASSETS"):
        envtest.provide({**env, "KUBEBUILDER_ASSETS": str(tmp_path)})


def test_both_are_built_with_go_and_kept(envtest, env, go, tmp_path):
    first = envtest.provide(env)
    second = envtest.provide(env)

    assert first == second
    assert first.is_relative_to(tmp_path / "cache" / "endpoint-picker" / "envtest")
    assert sorted(path.name for path in first.iterdir()) == list(PROGRAMS)
    assert len(go.builds) == 2


def test_the_build_is_static_pinned_and_has_a_release_version(envtest, env, go):
    envtest.provide(env)

    etcd, api_server = go.builds
    for build in (etcd, api_server):
        assert "CGO_ENABLED=0 GOTOOLCHAIN=local build" in build
        assert "-mod=readonly -trimpath" in build
    assert etcd.startswith(f"{envtest.SOURCES / 'etcd'} ")
    assert api_server.startswith(f"{envtest.SOURCES / 'apiserver'} ")
    version = "k8s.io/component-base/version"
    assert f"-X {version}.gitVersion=v1.34.4 -X {version}.gitMajor=1" in api_server
    assert f"-X {version}.gitMinor=34" in api_server


def test_a_failed_build_shows_what_go_said(envtest, env, go):
    go.install(before="echo main.go:3: no such package; exit 1")

    with pytest.raises(envtest.ToolError, match="Building etcd failed with status 1:\n.*no such"):
        envtest.provide(env)


def test_a_new_version_of_a_module_is_another_entry(envtest, monkeypatch, tmp_path):
    sources = tmp_path / "sources"
    (sources / "etcd").mkdir(parents=True)
    monkeypatch.setattr(envtest, "SOURCES", sources)
    names = []
    for text in ("one", "two"):
        (sources / "etcd" / "go.sum").write_text(text)
        names.append(envtest.entry_name())

    assert names[0] != names[1]
    assert all(name.startswith("kubernetes-1.34.4-") for name in names)


@pytest.mark.parametrize(
    "prefix",
    ["kubebuilder/bin", "./kubebuilder/bin", "controller-tools/envtest", "a/kubebuilder/bin"],
)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_an_archive_is_unpacked(envtest, env, archive, go, prefix, scheme):
    path = archive(**layout(prefix), **{"kubebuilder/bin/kubectl": SHELL})

    found = envtest.provide({**env, "ENVTEST_ARCHIVE": f"{scheme}{path}"})

    assert sorted(entry.name for entry in found.iterdir()) == list(PROGRAMS)
    assert go.calls == []
    assert envtest.provide(env) == found


def test_a_cached_copy_comes_before_the_archive(envtest, env, tmp_path, capsys):
    cached = envtest.provide(env)

    found = envtest.provide({**env, "ENVTEST_ARCHIVE": str(tmp_path / "none.tar.gz")})

    assert found == cached
    assert "ENVTEST_ARCHIVE is not read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        pytest.param({}, "no etcd and no kube-apiserver", id="empty"),
        pytest.param(layout("kubebuilder/bin", "etcd"), "no kube-apiserver", id="one"),
        pytest.param(layout("elsewhere"), "no etcd and no kube-apiserver", id="layout"),
        pytest.param(layout("kubebuilder/bin/.."), "no etcd and no kube-apiserver", id="dots"),
    ],
)
def test_an_archive_without_the_programs_is_an_error(envtest, env, archive, files, missing):
    path = archive(**files)

    with pytest.raises(envtest.ToolError) as caught:
        envtest.provide({**env, "ENVTEST_ARCHIVE": str(path)})

    assert str(caught.value) == (
        f"ENVTEST_ARCHIVE={path}: {missing} below kubebuilder/bin or controller-tools/envtest in it"
    )


def test_a_file_that_is_no_archive_is_an_error(envtest, env, tmp_path):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(b"text")

    with pytest.raises(envtest.ToolError, match=re.escape(f"ENVTEST_ARCHIVE={path}: no .tar.gz")):
        envtest.provide({**env, "ENVTEST_ARCHIVE": str(path)})


@pytest.mark.parametrize(
    ("named", "text"),
    [
        pytest.param("/no/such.tar.gz", "No such file or directory", id="file"),
        pytest.param("file:///no/such.tar.gz", "No such file or directory", id="file-url"),
        pytest.param("http://127.0.0.1:1/x", "Connection refused", id="http"),
        pytest.param("ftp://127.0.0.1/x", "only https://, http://, file:// can be read", id="ftp"),
    ],
)
def test_an_archive_that_cannot_be_read_is_an_error(envtest, env, named, text):
    with pytest.raises(envtest.ToolError) as caught:
        envtest.provide({**env, "ENVTEST_ARCHIVE": named})

    assert str(caught.value).startswith(f"ENVTEST_ARCHIVE={named}: ")
    assert text in str(caught.value)


def test_programs_of_another_machine_are_an_error(envtest, env, archive):
    files = {f"kubebuilder/bin/{name}": "\x7fELF another machine's" for name in PROGRAMS}

    with pytest.raises(envtest.ToolError, match="etcd does not run on this machine"):
        envtest.provide({**env, "ENVTEST_ARCHIVE": str(archive(**files))})
