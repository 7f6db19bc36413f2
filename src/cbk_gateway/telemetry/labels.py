"""The bound on label values: no series can be made without passing here.

`LabelRules` is asked once per new combination of labels, never per event. The order of arrival decides who
gets a name and who becomes `other`, and a name once given stays, so that no counter ever goes back.
"""

from __future__ import annotations

from typing import Final

OTHER: Final = "other"
"""What a label shows for every value beyond its cap."""

NOBODY: Final = "none"
"""What a label shows for a value that is not there, such as the tenant of an unknown caller."""

SWITCHABLE: Final = frozenset({"tenant", "resource", "action", "status", "cache", "policy", "quota"})
"""Labels that configuration may switch off."""

_LONGEST: Final = 128


class LabelRules:
    """Caps and switches for labels.

    Args:
        tenant_cap: Distinct tenants shown by name.
        value_cap: Distinct values of any other label. A second fence: the grammar bounds them already.
        switched_off: Labels left out of every series.

    Raises:
        ValueError: `switched_off` names a label that is not in `SWITCHABLE`.
    """

    __slots__ = ("_admitted", "_tenant_cap", "_value_cap", "switched_off")

    def __init__(
        self,
        *,
        tenant_cap: int = 200,
        value_cap: int = 500,
        switched_off: frozenset[str] = frozenset(),
    ) -> None:
        unknown = switched_off - SWITCHABLE
        if unknown:
            raise ValueError(
                f"labels that cannot be switched off: {', '.join(sorted(unknown))}; "
                f"these can: {', '.join(sorted(SWITCHABLE))}"
            )
        self._tenant_cap = tenant_cap
        self._value_cap = value_cap
        self._admitted: dict[str, set[str]] = {}
        self.switched_off = switched_off

    def shown(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The labels of a metric that are not switched off."""
        return tuple(label for label in labels if label not in self.switched_off)

    def admit(self, label: str, value: object) -> str:
        """The text that the label shows for `value`."""
        if value is None or value == "":
            return NOBODY
        text = str(value)
        if text in {OTHER, NOBODY}:
            return text
        names = self._admitted.setdefault(label, set())
        if text in names:
            return text
        cap = self._tenant_cap if label == "tenant" else self._value_cap
        if len(names) >= cap or len(text) > _LONGEST:
            return OTHER
        names.add(text)
        return text

    def admit_all(self, labels: tuple[str, ...], values: tuple[object, ...]) -> tuple[str, ...]:
        """The values of a series, in the order of `shown(labels)`.

        Raises:
            ValueError: There are more or fewer values than labels.
        """
        return tuple(
            self.admit(label, value)
            for label, value in zip(labels, values, strict=True)
            if label not in self.switched_off
        )
