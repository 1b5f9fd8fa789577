"""The durable store: every finished answer, kept within seconds, so that none is ever paid for twice.

A store is a folder, local or in object storage. Records, of ratings say, that are worth the same have one key (rater,
prompt, model, sampling, …) and lie in one sub-folder named by its hash, as JSON lines in small parts that are only ever
added:

    <store>/<hash of the key>/key.json
    <store>/<hash of the key>/<nanoseconds>-<hash of the content>.jsonl

A part appears whole or not at all and is never changed, so any number of processes may write at once without a lock. A
part's name carries the hash of its content: a damaged part is known, reported and left out.

Of many small parts one is made, `<nanoseconds>-<hash of the content>.parquet`, when a run begins: see `compaction`.

Where a store cannot be written any more, what is in hand goes to a spare place of the same form (`spare_places`). The
next run reads it there, and brings it in.
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
