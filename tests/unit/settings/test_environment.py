"""The environment is looked up by name, and shows no value to whoever prints, serialises or pickles it."""

from __future__ import annotations

import pickle

import orjson
import pytest

from cbk_gateway.settings.load import load
from cbk_gateway.settings.references import Environment

SECRET = "sk-0123456789abcdef"
VARIABLES = Environment({"KEY": SECRET, "OTHER": "x"})


def test_it_is_a_mapping() -> None:
    assert dict(VARIABLES) == {"KEY": SECRET, "OTHER": "x"}
    assert (VARIABLES["KEY"], VARIABLES.get("NONE"), len(VARIABLES), "KEY" in VARIABLES) == (
        SECRET,
        None,
        2,
        True,
    )


def test_it_shows_no_value() -> None:
    loaded = load(None, environ={"KEY": SECRET})
    for one in (VARIABLES, loaded):
        assert SECRET not in repr(one)
        assert SECRET not in orjson.dumps(one, default=str).decode()
        with pytest.raises(TypeError):
            pickle.dumps(one)
