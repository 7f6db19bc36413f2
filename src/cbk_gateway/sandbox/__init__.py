"""A stand-in of the ChatBotKit API: for tests, for the demo, and for developers without an account.

It shares no code with the gateway, so that it can judge it.
"""

from cbk_gateway.sandbox.answers import ApiError
from cbk_gateway.sandbox.faults import FAULTS, Fault
from cbk_gateway.sandbox.request_log import RequestRecord
from cbk_gateway.sandbox.server import Sandbox

__all__ = ["FAULTS", "ApiError", "Fault", "RequestRecord", "Sandbox"]
