"""Files and folders that are local or in object storage: `s3://` (S3), `az://` (Azure Blob) and `gs://` (Google).

places.py         paths of both kinds
files.py          reading, writing, listing and removing files of both kinds
local.py          local files, written atomically and durably
objects.py        files in object storage, through obstore
clients.py        clients of object storage; s3.py, azure.py and gcs.py have what is specific to each
connecting.py     certificates, retries and addresses of the clients
copies.py         uploads, downloads and folders of links
fingerprints.py   hashes of the content of files and folders
errors.py         errors of storage, explained
"""

from tamis.core.storage.copies import download, link_tree, upload
from tamis.core.storage.files import (
    children,
    create_bytes,
    exists,
    files_below,
    names_in,
    read_bytes,
    remove,
    remove_all,
    size_of,
    write_bytes,
)
from tamis.core.storage.fingerprints import fingerprint, sha256_of
from tamis.core.storage.local import remove_unfinished, sync_folder
from tamis.core.storage.places import (
    SCHEMES,
    Location,
    ObjectPath,
    below,
    extra_of,
    is_remote,
    locate,
    looked_for,
    missing,
    only_local,
)

__all__ = [
    "SCHEMES",
    "Location",
    "ObjectPath",
    "below",
    "children",
    "create_bytes",
    "download",
    "exists",
    "extra_of",
    "files_below",
    "fingerprint",
    "is_remote",
    "link_tree",
    "locate",
    "looked_for",
    "missing",
    "names_in",
    "only_local",
    "read_bytes",
    "remove",
    "remove_all",
    "remove_unfinished",
    "sha256_of",
    "size_of",
    "sync_folder",
    "upload",
    "write_bytes",
]
