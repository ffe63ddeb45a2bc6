"""Refuses commands whose optional part is not installed, before anything of it is imported."""

import importlib.util

from node.cli.output import refuse


def need_ai(module: str = "scipy") -> None:
    """Refuse where image processing, of which ``module`` is a part, is not installed: the base install has none."""
    if importlib.util.find_spec(module) is None:
        refuse("this command looks at pixels: pip install 'pacsgate[ai,codecs]'")


def need_modules(extra: str, *modules: str) -> None:
    """Refuse where an optional part is not installed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        refuse(f"this command needs {' and '.join(absent)}: pip install 'pacsgate[{extra}]'")
