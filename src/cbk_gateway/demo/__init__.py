"""The demo: a real gateway before a stand-in API, two tenants, and a tour that proves that it works.

stage.py   everything started, and everything gone afterwards
tour.py    the steps of `cbk-gateway demo --check`
poster.py  what a person sees
"""
