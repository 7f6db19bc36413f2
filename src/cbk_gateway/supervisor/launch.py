"""What a worker is started with, as a value that passes from the supervisor to a fresh interpreter.

Settings travel as they were validated, so that a file edited meanwhile cannot split the workers. They hold
references to secrets; the secrets themselves travel by the environment and by files, as ever.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from cbk_gateway.settings.gateway import GatewaySettings
from cbk_gateway.settings.load import Loaded

# The environment has had its say when the supervisor read the settings: no variable begins so.
_NO_PREFIX: Final = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Order:
    """What one worker is told at its start.

    Attributes:
        name: Its name among the workers that live, such as `0`; its journal is `w0`.
        settings_name: The settings' file as the operator gave it, for errors.
        folder: What relative paths in the settings are relative to.
        settings: The settings as plain values.
        sockets: Descriptors of the data port's sockets.
        accepts: Which of them it accepts on at first, by place.
        control: Path of the unix socket it answers the supervisor on.
        lifeline: Descriptor of the socket to the supervisor.
    """

    name: str
    settings_name: str
    folder: str
    settings: dict[str, Any]
    sockets: tuple[int, ...]
    accepts: tuple[int, ...]
    control: str
    lifeline: int

    def encode(self) -> bytes:
        """JSON, for the worker's standard input."""
        return orjson.dumps(self)

    @classmethod
    def decode(cls, encoded: bytes) -> Order:
        """What `encode` wrote."""
        fields = orjson.loads(encoded)
        return cls(**fields | {"sockets": tuple(fields["sockets"]), "accepts": tuple(fields["accepts"])})

    @property
    def control_path(self) -> Path:
        """Where the worker answers the supervisor."""
        return Path(self.control)

    def loaded(self) -> Loaded:
        """The settings, as a gateway takes them."""
        return Loaded(self.settings_name, Path(self.folder), revived(self.settings), os.environ)


def revived(document: dict[str, Any]) -> GatewaySettings:
    """The settings that `model_dump(mode="json")` wrote, with nothing of the environment."""
    return GatewaySettings(_env_prefix=_NO_PREFIX, **document)
