"""Every refusal has one shape, a public status and a bounded reason."""

import inspect

import orjson
import pytest

from cbk_gateway import errors
from cbk_gateway.errors import Refusal, TooManyRequests, render

REFUSALS = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, Refusal) and one is not Refusal
]


def made(kind: type[Refusal]) -> Refusal:
    if issubclass(kind, TooManyRequests):
        return kind("no", retry_after_s=0)
    if kind is errors.MethodNotAllowed:
        return kind("no", allow="GET")
    return kind("no")


@pytest.mark.parametrize("kind", REFUSALS, ids=lambda kind: kind.__name__)
def test_a_refusal_is_flat_for_sdks_and_nested_for_the_description(kind: type[Refusal]) -> None:
    refusal = made(kind)
    document = orjson.loads(refusal.body("r1"))
    assert document["message"] == "no"
    assert document["code"] == refusal.code
    assert document["error"] == {"message": "no", "code": refusal.code}
    assert document["requestId"] == "r1"
    assert 400 <= refusal.status <= 599
    assert refusal.reason


def test_details_never_replace_the_pair() -> None:
    document = orjson.loads(render("m", "C", details={"code": "X", "message": "Y", "error": 1, "more": 2}))
    assert (document["message"], document["code"], document["more"]) == ("m", "C", 2)
    assert document["error"] == {"message": "m", "code": "C"}


def test_retry_after_is_a_whole_second_at_least() -> None:
    assert TooManyRequests("no", retry_after_s=0).headers["Retry-After"] == "1"
    assert TooManyRequests("no", retry_after_s=7).headers["Retry-After"] == "7"
