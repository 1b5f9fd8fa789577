"""The durable store: keeps every finished answer within seconds, so that no answer is paid for twice.

A store is a folder, local or in object storage. Interchangeable records (ratings, for example) have the same key
(prompt, model, sampling, …) and are in one subfolder, named by the hash of the key. They are JSON lines in small parts,
which are added and never changed:

    <store>/<hash of the key>/key.json
    <store>/<hash of the key>/<nanoseconds>-<hash of the content>.jsonl

A part appears completely or not at all, so any number of processes may write at once without a lock. The name of a part
contains the hash of its content, so damaged parts are recognized, reported and left out.

At the start of a run, many small parts are merged into one, `<nanoseconds>-<hash of the content>.parquet`; see
`compaction`.

If a store cannot be written any more, answers that are not stored yet go to a spare place of the same form
(`spare_places`). The next run reads them there, and moves them to the store.
"""

from tamis.llm.store.folder import Store, StoreGoneError, spare_places
from tamis.llm.store.records import ATTEMPTS, PASSING, TOKENS, Records, Stored
from tamis.llm.store.waits import PATIENCE, tried_again
from tamis.llm.store.writer import Writer

__all__ = [
    "ATTEMPTS",
    "PASSING",
    "PATIENCE",
    "TOKENS",
    "Records",
    "Store",
    "StoreGoneError",
    "Stored",
    "Writer",
    "spare_places",
    "tried_again",
]
