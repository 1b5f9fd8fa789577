"""Asking language models that are services: within limits, through faults, and never longer than told.

`settings` says which service and within what limits; `limits` keeps to them; `faults` reads what went wrong; `client`
asks one request until it is answered or given up; `stream` asks many at once from a plain iterator.
"""
