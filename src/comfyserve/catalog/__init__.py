"""The workflows on offer: a folder that is watched, and what was published besides."""

from comfyserve.catalog.catalog import Catalog, Problem
from comfyserve.catalog.changes import Change
from comfyserve.catalog.documents import drift_document, workflow_detail, workflow_item
from comfyserve.catalog.drift import Drift, Misfit
from comfyserve.catalog.entry import Entry, Picture, Published
from comfyserve.catalog.names import check_name, name_of

__all__ = [
    "Catalog",
    "Change",
    "Drift",
    "Entry",
    "Misfit",
    "Picture",
    "Problem",
    "Published",
    "check_name",
    "drift_document",
    "name_of",
    "workflow_detail",
    "workflow_item",
]
