"""Objects that decode, objects that do not, and what an operator reads about them."""

import gc

import msgspec
import pytest
from structlog.testing import capture_logs

from epp.kube.decoding import ObjectDecoder, identify, locate, paused_gc
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName

KEY = NamespacedName("demo", "a")


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def pod(status: str = "{}") -> msgspec.Raw:
    meta = '{"name":"a","namespace":"demo","resourceVersion":"7","managedFields":[{"x":1}]}'
    return raw(f'{{"metadata":{meta},"status":{status}}}')


def decoder() -> ObjectDecoder[Pod]:
    return ObjectDecoder("Pod", msgspec.json.Decoder(Pod).decode)


def test_a_good_object_is_decoded_with_key_and_version() -> None:
    decoded = decoder().decode(pod('{"podIP":"10.0.0.1"}'))

    assert decoded is not None
    assert (decoded.key, decoded.resource_version) == (KEY, "7")
    assert decoded.value is not None
    assert decoded.value.status.pod_ip == "10.0.0.1"


def test_a_broken_object_keeps_its_identity_and_is_reported_with_field_and_value() -> None:
    with capture_logs() as logs:
        decoded = decoder().decode(pod('{"podIP":5}'))

    assert decoded == (KEY, "7", None)
    assert [(one["object"], one["field"], one["value"]) for one in logs] == [
        ("demo/a", "status.podIP", "5")
    ]
    assert logs[0]["error"] == "Expected `str`, got `int`"


def test_a_broken_object_is_reported_once_until_something_else_is_wrong() -> None:
    reports: list[str] = []
    broken = ObjectDecoder(
        "Pod", msgspec.json.Decoder(Pod).decode, on_broken=lambda: reports.append("x")
    )

    with capture_logs() as logs:
        for status in ('{"podIP":5}', '{"podIP":5}', '{"conditions":{}}', "{}", '{"podIP":5}'):
            broken.decode(pod(status))

    assert [one["field"] for one in logs] == ["status.podIP", "status.conditions", "status.podIP"]
    assert len(reports) == 3


def test_an_object_without_a_name_to_report_is_ignored() -> None:
    with capture_logs() as logs:
        assert decoder().decode(raw("[1]")) is None

    assert [one["event"] for one in logs] == ["object without metadata ignored"]


def test_identity_survives_broken_labels() -> None:
    broken = raw('{"metadata":{"name":"a","namespace":"demo","labels":{"x":5}}}')

    assert identify(broken).key == KEY
    decoded = decoder().decode(broken)
    assert decoded is not None
    assert decoded.value is None


@pytest.mark.parametrize(
    ("text", "problem", "want"),
    [
        pytest.param('{"a":[{"b":1}]}', "bad - at `$.a[0].b`", ("a[0].b", "1"), id="nested"),
        pytest.param(
            '{"a":{"x":{"y":2}}}',
            "bad - at `$.a[...].y`",
            ("a[...].y", '{"x":{"y":2}}'),
            id="in-a-map",
        ),
        pytest.param('{"a":1}', "missing field `b`", ("", '{"a":1}'), id="whole-object"),
        pytest.param('{"a":1}', "bad - at `$.b.c`", ("b.c", ""), id="not-there"),
        pytest.param('{"a":[1]}', "bad - at `$.a[7]`", ("a[7]", ""), id="beyond-the-list"),
        pytest.param("nonsense", "bad - at `$.a`", ("a", ""), id="not-json"),
    ],
)
def test_the_value_at_fault_is_found(text: str, problem: str, want: tuple[str, str]) -> None:
    assert locate(raw(text), problem) == want


def test_long_values_are_shortened() -> None:
    _, value = locate(raw(f'{{"a":"{"x" * 500}"}}'), "bad - at `$.a`")

    assert len(value) == 121
    assert value.endswith("…")


def test_the_garbage_collector_is_paused_and_resumes_also_after_an_error() -> None:
    with pytest.raises(KeyError), paused_gc():
        assert not gc.isenabled()
        raise KeyError

    assert gc.isenabled()
