"""Choices a site makes about what stays. Without imports, so that settings can name them at no cost."""

from enum import StrEnum


class DuplicatePolicy(StrEnum):
    """What an instance does that arrives under a known SOP Instance UID."""

    KEEP_FIRST = "keep-first"
    """The first version stays; another one is not stored, and its sender is told so."""
    REPLACE_IF_CHANGED = "replace-if-changed"
    """Other bytes replace it in the index (the object store keeps both); the same bytes change nothing."""
    REPLACE_ALWAYS = "replace-always"
    """Any arrival replaces it, so that its study is judged anew."""
