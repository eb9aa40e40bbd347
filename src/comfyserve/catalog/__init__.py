"""The workflows on offer: a folder that is watched, and what was published besides."""

from comfyserve.catalog.catalog import Catalog, Problem, check_folder
from comfyserve.catalog.changes import Change
from comfyserve.catalog.documents import drift_document, workflow_detail, workflow_item
from comfyserve.catalog.drift import Drift, Misfit
from comfyserve.catalog.entry import Entry, Picture, Published
from comfyserve.catalog.inspecting import Inspected, inspect
from comfyserve.catalog.names import check_name, name_of
from comfyserve.catalog.publishing import Publishing, published_in

__all__ = [
    "Catalog",
    "Change",
    "Drift",
    "Entry",
    "Inspected",
    "Misfit",
    "Picture",
    "Problem",
    "Published",
    "Publishing",
    "check_folder",
    "check_name",
    "drift_document",
    "inspect",
    "name_of",
    "published_in",
    "workflow_detail",
    "workflow_item",
]
