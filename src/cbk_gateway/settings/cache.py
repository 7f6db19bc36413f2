"""The cache section: which answers are remembered, for how long, and where."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cbk_gateway.settings.section import Bytes, Seconds, Section


class CacheSettings(Section):
    """Remembered answers of `list` and `fetch`."""

    enabled: bool = Field(True, description="Off: every read goes upstream.")
    config_s: float = Field(
        60.0, ge=0, description="Seconds for types that change by writes (bot, dataset, ...)."
    )
    volatile_s: float = Field(
        2.0, ge=0, description="Seconds for types that change by themselves; 0 for never."
    )
    global_s: float = Field(300.0, ge=0, description="Seconds for `platform/*`.")
    types: dict[str, float] = Field(
        default_factory=dict, description="Seconds for single types; 0 for never."
    )
    obey_upstream_max_age: bool = Field(
        True,
        description="Whether `Cache-Control: max-age` of the upstream shortens a lifetime. Off only for "
        "an edge "
        "that stamps max-age=0 on everything; no-store and private count in any case.",
    )
    max_entry_bytes: Bytes = Field(1024**2, description="Bytes; larger answers are passed, not kept.")
    l1_max_bytes: Annotated[int, Field(ge=0)] = Field(
        64 * 1024**2, description="Bytes of memory per worker; 0 for none."
    )
    l2_account_max_bytes: Bytes = Field(
        64 * 1024**2, description="Bytes of answers that one account may keep in the store."
    )
    account_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.25, description="Part of `l1_max_bytes` that one account may fill; 1 where there is one account."
    )
    collapse_wait_s: Seconds = Field(
        10.0, description="Seconds a request waits for another's fetch of the same answer."
    )
    compress: bool = Field(
        True, description="Whether zstd and gzip variants are prepared; off where a front compresses."
    )
    compress_min_bytes: Bytes = Field(1024, description="Bytes; smaller answers are not worth it.")
    jsonl_walks: bool = Field(
        False,
        description="Whether JSON Lines walks of a whole collection are kept; they are rarely repeated.",
    )
    consistency: Literal["strict", "bounded"] = Field(
        "strict", description="Whether a write waits until every worker has forgotten what it changed."
    )
    lease_s: Seconds = Field(
        2.0,
        description="Seconds a worker may serve from memory after it last heard the invalidation feed: "
        "the most "
        "that one hanging worker can delay a write. At least 2, four times the feed's heartbeat, at most 5.",
        ge=2,
        le=5,
    )
    stale_while_revalidate_s: float = Field(
        0.0, ge=0, description="Seconds an old answer may cover a refresh."
    )
    stale_if_error_s: float = Field(0.0, ge=0, description="Seconds an old answer may cover a dead upstream.")
    negative_s: float = Field(1.0, ge=0, description="Seconds a 404 on `fetch` is remembered; 0 for never.")
    shared_platform: bool = Field(
        False, description="One copy of `platform/*` for all accounts, when proven equal."
    )
    encryption_key: str | None = Field(
        None, description="Secret reference to 32 bytes (base64 or hex): encrypts entries."
    )
