"""Adapter slots: who may run together, what has to be loaded."""

from epp.modelsim.adapter_slots import AdapterSlots


def test_the_base_model_needs_no_slot() -> None:
    slots = AdapterSlots(0)

    assert slots.fits(None)
    assert not slots.enter(None)
    slots.leave(None)
    assert slots.running == []


def test_a_batch_holds_no_more_adapters_than_slots() -> None:
    slots = AdapterSlots(1)
    slots.enter("sql")

    assert slots.fits("sql")
    assert not slots.fits("chat")


def test_an_adapter_stays_loaded_until_its_slot_is_needed() -> None:
    slots = AdapterSlots(1)

    assert slots.enter("sql")
    slots.leave("sql")
    assert not slots.enter("sql")
    slots.leave("sql")
    assert slots.enter("chat")
    assert slots.loaded == ["chat"]


def test_a_running_adapter_is_never_unloaded() -> None:
    slots = AdapterSlots(2)
    slots.enter("sql")
    slots.enter("chat")
    slots.leave("chat")

    slots.enter("code")

    assert slots.loaded == ["sql", "code"]
    assert slots.running == ["sql", "code"]
