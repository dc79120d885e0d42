from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.requestcontrol.inflight import InFlight
from epp.requestcontrol.types import IncomingRequest, RoutingDecision
from epp.scheduling.types import Decision, InferenceRequest
from epp.testing.builders import make_endpoint

POD = make_endpoint()
MOVED = make_endpoint(address="10.0.0.9")


def pool() -> tuple[EndpointRows, InFlight]:
    rows = EndpointRows()
    rows.put(POD)
    return rows, InFlight(rows)


def routing(rows: EndpointRows, endpoint: Endpoint = POD) -> RoutingDecision:
    table = rows.snapshot(0.0)
    return RoutingDecision(
        request=IncomingRequest(request_id="same", path="/"),
        target_model="m",
        endpoint=endpoint,
        targets=(endpoint.target,),
        decision=Decision(
            request=InferenceRequest(request_id="same"),
            table=table,
            candidates=table.all_rows(),
            profiles=(),
            primary="",
        ),
    )


def begun(rows: EndpointRows, in_flight: InFlight, endpoint: Endpoint = POD) -> RoutingDecision:
    one = routing(rows, endpoint)
    in_flight.begin(one)
    return one


def count(rows: EndpointRows) -> int:
    """As requests see it, in the table."""
    [shown] = rows.snapshot(0.0).in_flight.tolist()
    return int(shown)


def test_equal_routings_are_counted_each() -> None:
    rows, in_flight = pool()
    first, second = routing(rows), routing(rows)

    in_flight.begin(first)
    in_flight.begin(second)
    assert (count(rows), len(in_flight)) == (2, 2)
    in_flight.end(first)

    assert (count(rows), len(in_flight)) == (1, 1)


def test_the_second_end_of_a_routing_counts_nothing() -> None:
    rows, in_flight = pool()
    first = begun(rows, in_flight)
    begun(rows, in_flight)

    ends = [in_flight.end(first), in_flight.end(first)]

    assert ends == [True, False]
    assert count(rows) == 1


def test_an_end_without_a_beginning_counts_nothing() -> None:
    rows, in_flight = pool()

    assert not in_flight.end(routing(rows))
    assert count(rows) == 0


def test_an_end_after_the_endpoint_left_is_harmless() -> None:
    rows, in_flight = pool()
    gone = begun(rows, in_flight)

    rows.remove(POD.key)

    assert in_flight.end(gone)
    assert len(in_flight) == 0
    assert in_flight.count(POD) == 0


def test_an_endpoint_that_was_unready_for_a_moment_still_runs_what_it_was_given() -> None:
    rows, in_flight = pool()
    before = [begun(rows, in_flight) for _ in range(3)]

    rows.remove(POD.key)
    in_flight.end(before[0])
    rows.put(POD)
    seen = [count(rows)]
    begun(rows, in_flight)
    seen.append(count(rows))
    in_flight.end(before[1])
    seen.append(count(rows))

    assert seen == [2, 3, 2]


def test_a_pod_that_replaced_another_runs_nothing_of_the_old_ones() -> None:
    rows, in_flight = pool()
    old = begun(rows, in_flight)

    rows.remove(POD.key)
    rows.put(MOVED)
    seen = [count(rows)]
    new = begun(rows, in_flight, MOVED)
    in_flight.end(old)
    seen.append(count(rows))
    in_flight.end(new)
    seen.append(count(rows))

    assert seen == [0, 1, 0]


def test_an_endpoint_that_changes_its_address_is_another_server() -> None:
    rows, in_flight = pool()
    old = begun(rows, in_flight)

    rows.put(MOVED)
    seen = [count(rows)]
    begun(rows, in_flight, MOVED)
    in_flight.end(old)
    seen.append(count(rows))

    assert seen == [0, 1]


def test_an_endpoint_that_comes_back_to_an_address_finds_its_requests_there() -> None:
    rows, in_flight = pool()
    old = begun(rows, in_flight)

    rows.put(MOVED)
    rows.put(POD)
    seen = [count(rows)]
    in_flight.end(old)
    seen.append(count(rows))

    assert seen == [1, 0]


def test_a_change_of_labels_alone_keeps_the_count() -> None:
    rows, in_flight = pool()
    begun(rows, in_flight)

    rows.put(make_endpoint(labels={"app": "x", "tier": "gpu"}))

    assert count(rows) == 1


def test_ports_of_one_address_are_servers_of_their_own() -> None:
    rows, in_flight = pool()
    begun(rows, in_flight)

    rows.put(make_endpoint(port=9000))

    assert count(rows) == 0


def test_nothing_is_remembered_of_servers_without_requests() -> None:
    rows, in_flight = pool()
    routings = [begun(rows, in_flight) for _ in range(5)]

    for one in routings:
        in_flight.end(one)

    assert (len(in_flight), in_flight.count(POD)) == (0, 0)
    assert vars(in_flight)["_counts"] == {}
