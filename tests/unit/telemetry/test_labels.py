"""The bound on label values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.telemetry.labels import LabelRules


def test_tenants_beyond_the_cap_are_other() -> None:
    rules = LabelRules(tenant_cap=2)
    assert [rules.admit("tenant", name) for name in ("a", "b", "c", "a", "c")] == [
        "a",
        "b",
        "other",
        "a",
        "other",
    ]


def test_the_cap_of_tenants_does_not_bind_other_labels() -> None:
    rules = LabelRules(tenant_cap=0)
    assert rules.admit("resource", "bot") == "bot"


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_value_is_none(value: str | None) -> None:
    assert LabelRules().admit("tenant", value) == "none"


@pytest.mark.parametrize("value", ["none", "other"])
def test_the_reserved_words_need_no_room_under_the_cap(value: str) -> None:
    rules = LabelRules(tenant_cap=1)
    assert rules.admit("tenant", value) == value
    assert rules.admit("tenant", "acme") == "acme"


def test_a_label_switched_off_is_left_out_of_the_series() -> None:
    rules = LabelRules(switched_off=frozenset({"action"}))
    assert rules.shown(("tenant", "action", "status")) == ("tenant", "status")
    assert rules.admit_all(("tenant", "action", "status"), ("acme", "list", 200)) == ("acme", "200")


def test_a_label_that_is_not_switchable_cannot_be_switched_off() -> None:
    with pytest.raises(ValueError, match="these can: action, cache"):
        LabelRules(switched_off=frozenset({"le"}))


def test_a_series_needs_a_value_for_every_label() -> None:
    with pytest.raises(ValueError, match="zip"):
        LabelRules().admit_all(("tenant", "status"), ("acme",))


@given(st.lists(st.text(max_size=200), max_size=300))
def test_no_input_makes_more_names_than_the_cap(values: list[str]) -> None:
    rules = LabelRules(tenant_cap=5, value_cap=7)
    # Two more for the reserved words.
    assert len({rules.admit("tenant", value) for value in values}) <= 7
    assert len({rules.admit("reason", value) for value in values}) <= 9
