"""The operators' port: health, metrics, administration. Never the API, and never on the data port.

port.py     the application and who may use it
health.py   alive and ready
views.py    what operators may see
changes.py  what they may change, each change audited
answers.py  what they are answered, for the description
"""

from cbk_gateway.admin.port import AdminPort

__all__ = ["AdminPort"]
