"""Verification: whether a journal is what was written, and if not, where it is not.

Streams every segment once and keeps a few counters, so memory does not grow with the journal. With the
public key alone, every alteration up to the last signature is proven and every one after it shows unless
the whole tail was made anew; with the private key (for its `mac` key) or the anchors, that shows too.
How one chain is walked is `walk.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cbk_gateway.audit import tombstone
from cbk_gateway.audit.reading import is_live, segments, workers
from cbk_gateway.audit.signing import (
    Anchor,
    SigningKey,
    anchors_directory,
    key_id_of,
    load_or_make,
    load_public,
    public_path,
    read_anchors,
)
from cbk_gateway.audit.walk import ChainWalk, Finding, Tally

MAX_FINDINGS: Final = 1000
"""Findings kept in a report; more are counted."""


@dataclass(frozen=True, slots=True)
class VerifyKeys:
    """What a journal is verified with.

    Attributes:
        public: Public keys by key id; several after a rotation.
        mac_key: The chain's `mac` key, when the private key is at hand.
        anchors: Folder of the anchors, when at hand.
    """

    public: Mapping[str, Ed25519PublicKey]
    mac_key: bytes | None = field(default=None, repr=False)
    anchors: Path | None = None


@dataclass(slots=True)
class Report:
    """What verification found.

    Attributes:
        tally: Records, bytes, segments and signatures seen, unsigned records at the chains' ends.
        workers: Chains seen.
        findings: Problems and notes, in the order of the journal, at most `MAX_FINDINGS`.
        problems: How many problems there are in all.
    """

    tally: Tally = field(default_factory=Tally)
    workers: int = 0
    findings: list[Finding] = field(default_factory=list)
    problems: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing was found but notes."""
        return self.problems == 0


def keys_at(key_path: Path) -> VerifyKeys:
    """The keys beside a journal's signing key: private if readable, else its public half alone.

    Raises:
        JournalFault: Neither can be read.
    """
    if key_path.exists():
        key: SigningKey = load_or_make(key_path)
        return VerifyKeys({key.key_id: key.public_key}, key.mac_key, anchors_directory(key_path))
    public = load_public(key_path if key_path.suffix == ".pub" else public_path(key_path))
    return VerifyKeys({key_id_of(public): public})


def verify(directory: Path, keys: VerifyKeys, *, progress: Callable[[int], None] | None = None) -> Report:
    """Verify a whole journal.

    Args:
        directory: The journal.
        keys: See `VerifyKeys`.
        progress: Called now and then with the bytes read since the last call, as they stand on disk
            uncompressed.

    Raises:
        JournalFault: There is no such directory.
    """
    report = Report()
    for finding in findings(directory, keys, report, progress=progress):
        if finding.is_problem:
            report.problems += 1
        if len(report.findings) < MAX_FINDINGS:
            report.findings.append(finding)
    return report


def findings(
    directory: Path,
    keys: VerifyKeys,
    report: Report | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Finding]:
    """Verify, giving each finding as it is made; `report` gets the counts."""
    report = report if report is not None else Report()
    anchors, bad_anchors = _anchors(keys)
    for path in bad_anchors:
        yield Finding("bad_signature", path.stem, str(path), message="the anchor's signature is not ours")
    for folder in workers(directory):
        files = segments(folder)
        stones, bad_lines = tombstone.read(folder, keys.public.values())
        anchor = anchors.pop(folder.name, None)
        if not files and not stones and anchor is None:
            continue
        report.workers += 1
        for number in bad_lines:
            message = "the tombstone's signature is not ours"
            where = str(folder / tombstone.FILE_NAME)
            yield Finding("bad_signature", folder.name, where, line=number, message=message)
        walk = ChainWalk(folder.name, keys.public, keys.mac_key, report.tally, progress)
        yield from walk.follow(files, stones, anchor, is_live=is_live(folder))
    for anchor in anchors.values():
        message = f"the whole chain is gone; it had {anchor.head.seq} records at {anchor.time}"
        yield Finding("missing_segment", anchor.worker, str(directory / anchor.worker), message=message)


def _anchors(keys: VerifyKeys) -> tuple[dict[str, Anchor], list[Path]]:
    if keys.anchors is None or not keys.anchors.is_dir():
        return {}, []
    good: dict[str, Anchor] = {}
    bad: set[Path] | None = None
    for key in keys.public.values():
        found, unsigned = read_anchors(keys.anchors, key)
        good.update({anchor.worker: anchor for anchor in found})
        bad = set(unsigned) if bad is None else bad & set(unsigned)
    return good, sorted(bad or ())
