"""The engines that answer prompts, and the store that keeps their answers.

`durable` is the entry point for stages: it asks about samples, stores every answer, and enforces limits on failures and
cost. `backends` has the engines. For services, `limits` keeps to rate limits, `faults` classifies errors, `client`
sends one request until it is answered or given up, and `stream` sends many at once from a plain iterator.
"""
