"""How configuration names secrets without holding them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cbk_gateway.secret import Secret
from cbk_gateway.settings.references import (
    MAX_SECRET_BYTES,
    ReferenceFault,
    Scheme,
    parse_reference,
    resolve,
    vault_parts,
)

SK = "sk-0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "scheme", "target"),
    [
        ("env:ACME_KEY", Scheme.ENV, "ACME_KEY"),
        (" env:ACME_KEY ", Scheme.ENV, "ACME_KEY"),
        ("file:/run/secrets/acme", Scheme.FILE, "/run/secrets/acme"),
        ("file:acme.key", Scheme.FILE, "acme.key"),
        ("vault:secret/cbk/acme#upstream", Scheme.VAULT, "secret/cbk/acme#upstream"),
        ("vault:secret/cbk/acme", Scheme.VAULT, "secret/cbk/acme#key"),
    ],
)
def test_a_reference_is_read(text: str, scheme: Scheme, target: str) -> None:
    reference = parse_reference(text)
    assert (reference.scheme, reference.target) == (scheme, target)


@pytest.mark.parametrize(
    "text",
    [
        SK,
        "",
        "env:",
        "ENV:X",
        "env:A B",
        "env:1X",
        "file:",
        "file:a\0b",
        "http://x",
        "inline:" + SK,
        "vault:secret",
        "vault:secret/../x",
        "vault:secret//x",
        "vault:secret/a b",
        "vault:/x",
        "vault:secret/a#",
        f"file {SK}",
    ],
)
def test_what_is_no_reference_is_refused_unseen(text: str) -> None:
    with pytest.raises(ReferenceFault) as caught:
        parse_reference(text)
    assert SK not in str(caught.value)
    assert caught.value.remedy


def test_an_inline_secret_is_taken_where_allowed_and_never_shown() -> None:
    reference = parse_reference("inline:" + SK, allow_inline=True)
    assert resolve(reference, environ={}).reveal() == SK
    assert SK not in repr(reference) + str(reference)


def test_a_variable_is_followed() -> None:
    assert resolve(parse_reference("env:K"), environ={"K": f" {SK}\n"}).reveal() == SK


@pytest.mark.parametrize(("environ", "says"), [({}, "is not set"), ({"K": "  "}, "is empty")])
def test_a_variable_without_a_secret_is_an_error(environ: dict[str, str], says: str) -> None:
    with pytest.raises(ReferenceFault, match=f"variable K {says}"):
        resolve(parse_reference("env:K"), environ=environ)


def test_a_file_is_followed_from_the_settings_folder(tmp_path: Path) -> None:
    (tmp_path / "acme.key").write_text(SK + "\n")
    reference = parse_reference("file:acme.key")
    assert resolve(reference, environ={}, folder=tmp_path).reveal() == SK
    absolute = parse_reference(f"file:{tmp_path / 'acme.key'}")
    assert resolve(absolute, environ={}, folder=Path("/elsewhere")).reveal() == SK


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "is not text"),
        (b"x" * (MAX_SECRET_BYTES + 1), "is over"),
    ],
)
def test_a_file_without_a_secret_is_an_error(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "k"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ReferenceFault, match=says):
        resolve(parse_reference(f"file:{path}"), environ={})


def test_a_vault_secret_is_what_was_read_before() -> None:
    reference = parse_reference("vault:secret/acme")
    known = {"vault:secret/acme#key": Secret(SK)}
    assert resolve(reference, environ={}, vault=known).reveal() == SK
    with pytest.raises(ReferenceFault, match="could not be read"):
        resolve(reference, environ={}, vault={})
    with pytest.raises(ReferenceFault, match="not configured"):
        resolve(reference, environ={})


def test_a_vault_target_has_three_parts() -> None:
    assert vault_parts("kv/a/b#c") == ("kv", "a/b", "c")
