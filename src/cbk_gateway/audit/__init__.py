"""What they changed: a journal that is durable before a write is sent, and that proves itself afterwards.

act.py        what the pipeline says: acts and outcomes
options.py    options, observer, fault
record.py     fields of a record, documented
redaction.py  what of a body is kept
chain.py      the line format: hash chain, keyed digests, signatures
signing.py    the key outside the journal, anchors
disk.py       system calls
segment.py    one worker's segments on disk
writer.py     the thread of group commits
recovery.py   what a dead process left
startup.py    going on after it
journal.py    the face towards the pipeline
tag.py        the mark by which a create is found again
resolver.py   what became of writes whose outcome is unknown
reading.py, search.py, index.py    finding records
export.py, parquet.py              records for other tools
verify.py, walk.py                 proof
retention.py, tombstone.py, upkeep.py, sinks/    what is done beside
"""

from cbk_gateway.audit.act import Act, Outcome, Result
from cbk_gateway.audit.journal import Intent, Journal
from cbk_gateway.audit.options import (
    JournalFault,
    JournalObserver,
    JournalOptions,
    OnFailure,
    SilentObserver,
)
from cbk_gateway.audit.record import told_ids

__all__ = [
    "Act",
    "Intent",
    "Journal",
    "JournalFault",
    "JournalObserver",
    "JournalOptions",
    "OnFailure",
    "Outcome",
    "Result",
    "SilentObserver",
    "told_ids",
]
