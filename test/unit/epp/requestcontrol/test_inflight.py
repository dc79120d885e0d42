from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.requestcontrol.inflight import InFlight
from epp.requestcontrol.types import IncomingRequest, RoutingDecision
from epp.scheduling.types import Decision, InferenceRequest
from epp.testing.builders import make_endpoint

POD = make_endpoint()


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


def count(rows: EndpointRows) -> int:
    row = rows.get(POD.key)
    assert row is not None
    return row.in_flight


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
    first, second = routing(rows), routing(rows)
    in_flight.begin(first)
    in_flight.begin(second)

    ends = [in_flight.end(first), in_flight.end(first)]

    assert ends == [True, False]
    assert count(rows) == 1


def test_an_end_without_a_beginning_counts_nothing() -> None:
    rows, in_flight = pool()

    assert not in_flight.end(routing(rows))
    assert count(rows) == 0


def test_an_end_after_the_endpoint_left_is_harmless() -> None:
    rows, in_flight = pool()
    gone = routing(rows)
    in_flight.begin(gone)

    rows.remove(POD.key)

    assert in_flight.end(gone)
    assert len(in_flight) == 0


def test_an_endpoint_of_the_same_name_does_not_inherit_the_ends_of_the_old_one() -> None:
    rows, in_flight = pool()
    old = routing(rows)
    in_flight.begin(old)
    rows.remove(POD.key)
    rows.put(POD)
    new = routing(rows)
    in_flight.begin(new)

    in_flight.end(old)
    assert count(rows) == 1
    in_flight.end(new)

    assert count(rows) == 0


def test_a_change_of_address_keeps_the_count() -> None:
    rows, in_flight = pool()
    moved = routing(rows)
    in_flight.begin(moved)

    rows.put(make_endpoint(address="10.0.0.9"))
    in_flight.end(moved)

    assert count(rows) == 0
