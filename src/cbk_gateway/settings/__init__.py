"""Configuration: files and environment in, checked frozen values out, every problem named at once."""

from cbk_gateway.settings.faults import Problem, SettingsError

__all__ = ["Problem", "SettingsError"]
