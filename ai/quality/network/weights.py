"""Weights on disk: a folder with ``weights.safetensors`` and ``network.json``, which says exactly what they fit.

safetensors holds numbers and nothing that runs. ``network.json`` names the architecture with all its sizes, the
versions of everything the weights were trained on (input, prompt vocabulary, metrics), the hash of the weights, and a
seal over all of that: sizes that no tensor shows (a residual's scale) change every result. A folder that differs in any
of them is refused with the reason; there is no loading in part.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ai.quality.model_files import UnusableModel, check_version, sha256_of
from ai.quality.network.adversarial import Familiarity, FamiliarityConfig
from ai.quality.network.family_classifier import FamilyClassifier, FamilyClassifierConfig
from ai.quality.network.inputs import INPUT_VERSION
from ai.quality.network.maniqa import Maniqa, ManiqaConfig, ManiqaMini, ManiqaMiniConfig
from ai.quality.network.pooling import SeriesPooling, SeriesPoolingConfig
from ai.quality.prompts import VOCABULARY_VERSION

Network = TypeVar("Network", bound=nn.Module)

FORMAT_VERSION = "1"
WEIGHTS_FILE = "weights.safetensors"
DESCRIPTION_FILE = "network.json"


@dataclass(frozen=True)
class Architecture:
    """A kind of network: the class of its sizes and its own."""

    config: type[Any]
    network: type[nn.Module]


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "maniqa-mini": Architecture(ManiqaMiniConfig, ManiqaMini),
        "maniqa": Architecture(ManiqaConfig, Maniqa),
        "series-pooling": Architecture(SeriesPoolingConfig, SeriesPooling),
        "family-classifier": Architecture(FamilyClassifierConfig, FamilyClassifier),
        "familiarity": Architecture(FamiliarityConfig, Familiarity),
    }
)
"""Every network that can be stored, by the name in ``network.json``. Each has its sizes as ``config``."""


def save_network(folder: Path, network: nn.Module, metrics_version: str) -> None:
    """Write a network's weights and description; the folder is made.

    ``metrics_version`` is that of the image metrics its labels and companions were made with.

    Raises:
        ValueError: the network is of no architecture in ARCHITECTURES.
    """
    name = _name(type(network))
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    partial = folder / (WEIGHTS_FILE + ".partial")
    save_file(state, partial)
    description: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "architecture": name,
        "config": asdict(network.config),  # type: ignore[call-overload]
        "versions": _versions(metrics_version),
        "sha256": sha256_of(partial),
    }
    description["seal"] = seal_of(description)
    partial.replace(folder / WEIGHTS_FILE)
    described = folder / (DESCRIPTION_FILE + ".partial")
    described.write_text(json.dumps(description, indent=2) + "\n")
    described.replace(folder / DESCRIPTION_FILE)


def load_network(folder: Path, kind: type[Network], metrics_version: str) -> Network:
    """The network of a folder, which must be of this kind, in evaluation mode on the processor.

    Raises:
        UnusableModel: a file is missing or damaged, or the architecture, a version, a hash or a shape does not fit.
        ValueError: the kind is of no architecture in ARCHITECTURES.
    """
    wanted_name = _name(kind)
    description = _description(folder)
    for what, wanted in _versions(metrics_version).items():
        check_version(folder, what, _get(folder, description, "versions").get(what), wanted)
    config = _config(folder, description, wanted_name)
    if _get(folder, description, "seal") != seal_of(description):
        raise UnusableModel(
            f"{folder / DESCRIPTION_FILE} was changed after it was written: copy the whole folder again"
        )
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise UnusableModel(f"{weights} is missing: copy the whole folder of the model")
    if sha256_of(weights) != _get(folder, description, "sha256"):
        raise UnusableModel(f"{weights} is not the file that {DESCRIPTION_FILE} describes (SHA-256): copy it again")
    _check_shapes(weights, kind, config)
    network = kind(config)
    network.load_state_dict(load_file(weights), strict=True)
    return network.eval()


def seal_of(description: Mapping[str, Any]) -> str:
    """SHA-256 over everything a description says but its seal; it identifies the model, weights included."""
    content = {key: value for key, value in description.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _name(kind: type[nn.Module]) -> str:
    name = next((name for name, entry in ARCHITECTURES.items() if kind is entry.network), None)
    if name is None:
        raise ValueError(f"{kind.__name__} is no architecture that can be stored")
    return name


def _versions(metrics_version: str) -> dict[str, str]:
    return {"input": INPUT_VERSION, "prompt vocabulary": VOCABULARY_VERSION, "metrics": metrics_version}


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UnusableModel(f"{path} cannot be read ({error}): copy the whole folder of the model") from error
    if not isinstance(description, dict) or not isinstance(description.get("versions"), dict):
        raise UnusableModel(f"{path} describes no network")
    check_version(path, "file format", description.get("format"), FORMAT_VERSION)
    return description


def _get(folder: Path, description: Mapping[str, Any], key: str) -> Any:
    if key not in description:
        raise UnusableModel(f"{folder / DESCRIPTION_FILE} lacks {key!r}")
    return description[key]


def _config(folder: Path, description: Mapping[str, Any], name: str) -> Any:
    """The sizes of the network, as its class of sizes."""
    found = _get(folder, description, "architecture")
    if found != name:
        raise UnusableModel(f"{folder} holds a network of kind {found!r}, {name!r} is needed here")
    config = ARCHITECTURES[name].config
    sizes = _get(folder, description, "config")
    wanted = {field.name for field in fields(config)}
    # Defaults may change from release to release, so every size has to be told.
    if not isinstance(sizes, dict) or set(sizes) != wanted:
        differing = ", ".join(sorted(wanted ^ set(sizes))) if isinstance(sizes, dict) else "all"
        raise UnusableModel(f"{folder}: the sizes of {name} do not fit this release: {differing}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
    return config(**values)


def _check_shapes(weights: Path, kind: type[nn.Module], config: Any) -> None:
    """Compare names and shapes before anything is allocated."""
    try:
        with torch.device("meta"):
            wanted = {key: tuple(value.shape) for key, value in kind(config).state_dict().items()}
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise UnusableModel(
            f"{weights.parent}: no network can have the sizes of {DESCRIPTION_FILE}: {error}"
        ) from error
    try:
        with safe_open(weights, "pt") as stored:
            found = {key: tuple(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UnusableModel(f"{weights} is no safetensors file: {error}") from error
    differing = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if differing:
        first = differing[0]
        raise UnusableModel(
            f"{weights} does not fit {kind.__name__}: {len(differing)} tensors differ, first {first} "
            f"(stored {found.get(first, 'absent')}, expected {wanted.get(first, 'absent')})"
        )
