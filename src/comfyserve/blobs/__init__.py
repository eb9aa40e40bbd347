"""Where bytes last: kept by their hash, in a folder or (one day) a bucket."""

from __future__ import annotations

from comfyserve.blobs.blobs import Blob, Blobs, BlobWriter, KeptBytes, blob_key

__all__ = ["Blob", "BlobWriter", "Blobs", "KeptBytes", "blob_key"]
