"""An API gateway for the ChatBotKit API: a drop-in base URL with identity, limits, cache and audit."""

__version__ = "0.1.0"
