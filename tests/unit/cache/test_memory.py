"""The worker's own tier: bounds, order of eviction, invalidation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.cache.copy import Copy
from cbk_gateway.cache.entry import Entry
from cbk_gateway.cache.memory import Memory


def copy(name: str, account: str = "acme", size: int = 100, reads: tuple[str, ...] = ("bot",)) -> Copy:
    entry = Entry(200, "application/json", "", '"t"', b"x" * size, 0, 60_000)
    return Copy(entry, account=account, digest=name, label="bot /", reads=reads, sent_at=0.0, now_ms=0)


ONE = copy("x").size_bytes


def test_the_least_recently_used_gives_way() -> None:
    memory = Memory(3 * ONE, 1.0)
    for name in "abc":
        memory.put(copy(name))
    assert memory.put(copy("d")) == 1
    assert memory.find("a") is None
    assert memory.find("b") is not None


def test_one_used_often_outlives_one_used_lately() -> None:
    memory = Memory(3 * ONE, 1.0)
    memory.put(copy("often"))
    for _ in range(4):
        memory.find("often")
    for name in "abcdef":
        memory.put(copy(name))
    assert memory.find("often") is not None


def test_even_one_used_often_gives_way_in_the_end() -> None:
    memory = Memory(3 * ONE, 1.0)
    memory.put(copy("often"))
    for _ in range(100):
        memory.find("often")
    for number in range(100):
        memory.put(copy(f"n{number}"))
    assert memory.find("often") is None


def test_an_account_past_its_share_evicts_only_its_own() -> None:
    memory = Memory(8 * ONE, 0.5)
    memory.put(copy("theirs", account="globex"))
    for number in range(20):
        memory.put(copy(f"n{number}"))
    assert memory.account_bytes("acme") <= 4 * ONE
    assert memory.find("theirs") is not None


def test_only_the_very_copy_that_is_meant_is_forgotten() -> None:
    memory = Memory(3 * ONE, 1.0)
    former, present = copy("a"), copy("a")
    memory.put(former)
    memory.put(present)
    assert (memory.holds(former), memory.holds(present)) == (False, True)
    memory.forget(former)
    assert memory.find("a") is present
    memory.forget(present)
    assert (len(memory), memory.size_bytes) == (0, 0)


def test_what_is_larger_than_a_share_is_not_taken() -> None:
    memory = Memory(2 * ONE, 0.5)
    memory.put(copy("small", size=1))
    assert memory.put(copy("large", size=5000)) == 0
    assert memory.find("large") is None
    assert memory.find("small") is not None


def test_no_room_means_nothing_is_taken() -> None:
    memory = Memory(0, 1.0)
    memory.put(copy("a"))
    assert len(memory) == 0


def test_invalidation_finds_what_depends_and_leaves_the_rest() -> None:
    memory = Memory(100 * ONE, 1.0)
    memory.put(copy("bots"))
    memory.put(copy("both", reads=("bot", "dataset")))
    memory.put(copy("datasets", reads=("dataset",)))
    memory.put(copy("view", reads=("~any",)))
    memory.put(copy("theirs", account="globex"))
    assert memory.invalidate("acme", {"bot"}) == 3
    assert [name for name in ("bots", "both", "datasets", "view", "theirs") if memory.find(name)] == [
        "datasets",
        "theirs",
    ]
    assert memory.invalidate("acme", {"*"}) == 1
    assert memory.invalidate("nobody", {"*"}) == 0


def test_a_variant_counts() -> None:
    memory = Memory(100 * ONE, 1.0)
    one = copy("a", size=2000)
    memory.put(one)
    before = memory.size_bytes
    one.form.add("gzip", b"z" * 300)
    memory.resized(one)
    assert memory.size_bytes == before + 300
    assert memory.resized(one) == 0
    memory.drop("a")
    assert memory.size_bytes == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "drop", "find", "invalidate"]),
            st.sampled_from("abcdefgh"),
            st.sampled_from(["acme", "globex"]),
            st.integers(0, 3000),
        ),
        max_size=60,
    )
)
def test_the_books_always_balance(acts: list[tuple[str, str, str, int]]) -> None:
    """Bytes are within bounds and are the sum of what is there, whatever was done."""
    memory = Memory(6000, 0.6)
    for act, name, account, size in acts:
        if act == "put":
            memory.put(copy(f"{account}-{name}", account, size))
        elif act == "drop":
            memory.drop(f"{account}-{name}")
        elif act == "find":
            memory.find(f"{account}-{name}")
        else:
            memory.invalidate(account, {"bot"})
        held = [memory._order[one].size_bytes for one in memory._order]
        assert memory.size_bytes == sum(held) <= 6000
        assert memory.account_bytes("acme") + memory.account_bytes("globex") == memory.size_bytes
        assert max(memory.account_bytes("acme"), memory.account_bytes("globex")) <= 3600
