"""Keeps rows in one SQLite file, so that a developer's offline ChatBotKit survives a restart.

It stores what it is given and gives it back in order; it decides nothing. Contents of files are beside it,
in a folder of the same name, and belong to `blobs`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import orjson

from cbk_gateway.sandbox.store import Row


class SqliteJournal:
    """Rows in a SQLite file, written through.

    Args:
        path: The file; made when missing, its folder too.

    Raises:
        OSError: The file cannot be opened, or is not a SQLite file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(path, isolation_level=None)
        try:
            # A developer's data on a developer's machine: losing the last second in a power cut is fine,
            # waiting for the disk on each call is not.
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=OFF")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS rows"
                " (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, content BLOB NOT NULL)"
            )
        except sqlite3.Error as error:
            self._file.close()
            raise OSError(f"cannot keep sandbox data in {path}: {error}") from error

    def load(self) -> list[Row]:
        """All rows, oldest first."""
        found = self._file.execute("SELECT seq, content FROM rows ORDER BY seq").fetchall()
        return [_read_row(seq, content) for seq, content in found]

    def save(self, row: Row) -> None:
        """Keep the row as it is now."""
        content = orjson.dumps(
            {
                "id": row.id,
                "kind": row.kind,
                "owner": row.owner,
                "parent": row.parent,
                "body": row.body,
                "hidden": row.hidden,
                "created": row.created,
                "updated": row.updated,
            }
        )
        self._file.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (row.id, row.seq, content))

    def forget(self, row_id: str) -> None:
        """Drop the row."""
        self._file.execute("DELETE FROM rows WHERE id = ?", (row_id,))

    def wipe(self) -> None:
        """Drop everything."""
        self._file.execute("DELETE FROM rows")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read_row(seq: int, content: bytes) -> Row:
    kept = orjson.loads(content)
    return Row(
        kept["id"],
        kept["kind"],
        kept["owner"],
        kept["parent"],
        body=kept["body"],
        hidden=kept["hidden"],
        created=kept["created"],
        updated=kept["updated"],
        seq=seq,
    )
