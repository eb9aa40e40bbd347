"""Assets for callers: kept, shared by their hash, referred to in graphs, and at last forgotten."""

from __future__ import annotations

from comfyserve.asset_library.library import AssetLibrary, Minted, UploadDetails
from comfyserve.asset_library.staging import Resolved

__all__ = ["AssetLibrary", "Minted", "Resolved", "UploadDetails"]
