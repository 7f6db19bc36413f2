"""`cbk-gateway completion`: the script that lets a shell complete the command's words.

Printed, never installed: which of a user's files a shell reads is the user's business.
"""

from __future__ import annotations

import sys
from typing import Literal

from cyclopts import App


def register(app: App) -> None:
    """Add the command, which describes the very application it belongs to."""

    @app.command
    def completion(shell: Literal["bash", "zsh", "fish"]) -> int:
        """Print the completion script of a shell.

        Bash reads it from `~/.local/share/bash-completion/completions/cbk-gateway`, zsh from a folder of its
        `fpath` as `_cbk-gateway`, fish from `~/.config/fish/completions/cbk-gateway.fish`.

        Example: `source <(cbk-gateway completion bash)`

        Args:
            shell: Which shell.
        """
        sys.stdout.write(app.generate_completion(shell=shell))
        return 0
