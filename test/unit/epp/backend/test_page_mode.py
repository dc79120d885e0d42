"""Restricted questions and full pages: who gets which."""

import pytest

from epp.backend.page_mode import PageMode


def test_an_answer_that_lacks_nothing_is_enough() -> None:
    mode = PageMode()

    assert not mode.needs_full_page(())
    assert not mode.full


def test_what_the_full_page_lacks_too_is_not_asked_for_again() -> None:
    mode = PageMode()

    assert mode.needs_full_page({"lora"})
    mode.full_page_came({"lora"})

    assert not mode.needs_full_page({"lora"})
    assert mode.needs_full_page({"lora", "queued"})
    assert not mode.full


def test_a_server_that_twice_hides_what_it_has_gets_full_pages() -> None:
    mode = PageMode()

    assert mode.needs_full_page({"queued"})
    mode.full_page_came(())
    assert not mode.full
    assert mode.needs_full_page({"queued"})

    assert mode.full


def test_a_metric_that_appeared_between_the_questions_is_no_reason() -> None:
    mode = PageMode()

    assert mode.needs_full_page({"lora"})
    mode.full_page_came(())
    assert not mode.needs_full_page(())
    assert mode.needs_full_page({"lora"})

    assert not mode.full


def test_another_missing_metric_does_not_confirm_the_first() -> None:
    mode = PageMode()

    assert mode.needs_full_page({"lora"})
    mode.full_page_came(())
    assert mode.needs_full_page({"queued"})

    assert not mode.full


def test_a_new_process_is_asked_the_restricted_question_again() -> None:
    mode = PageMode()
    mode.needs_full_page({"queued"})
    mode.full_page_came(())
    mode.needs_full_page({"queued"})

    mode.reset()

    assert not mode.full
    assert mode.needs_full_page({"queued"})


@pytest.mark.parametrize("resets", [pytest.param(0, id="new"), pytest.param(1, id="reset")])
def test_unrestricted_endpoints_always_get_full_pages(resets: int) -> None:
    mode = PageMode(restricted=False)

    for _ in range(resets):
        mode.reset()

    assert mode.full
