"""Weight files: what was saved comes back, and whatever does not fit is refused with the reason."""

import json
from pathlib import Path

import pytest
import torch

from ai.quality.model_files import UnusableModel
from ai.quality.network.adversarial import Familiarity
from ai.quality.network.family_classifier import FamilyClassifier
from ai.quality.network.maniqa import ManiqaMini, ManiqaMiniConfig
from ai.quality.network.pooling import SeriesPooling
from ai.quality.network.weights import DESCRIPTION_FILE, WEIGHTS_FILE, load_network, save_network, seal_of
from ai.quality.prompts import LEVELS

SMALL = ManiqaMiniConfig(channels=(8, 8, 8), depths=(1, 1, 1), width=8, heads=2, condition=8)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    save_network(tmp_path, ManiqaMini(SMALL), "m1")
    return tmp_path


def rewrite(folder: Path, **changes: object) -> None:
    """A description somebody made on purpose: it is sealed again."""
    path = folder / DESCRIPTION_FILE
    description = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(description | {"seal": seal_of(description)}))


@pytest.mark.parametrize("network", [lambda: ManiqaMini(SMALL), FamilyClassifier, SeriesPooling, Familiarity])
def test_a_network_comes_back_as_it_was(network, tmp_path: Path) -> None:
    saved = network()
    save_network(tmp_path, saved, "m1")
    found = load_network(tmp_path, type(saved), "m1")
    assert type(found) is type(saved)
    assert found.config == saved.config
    assert not found.training
    state = saved.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in found.state_dict().items())


def test_a_loaded_network_judges_bit_for_bit_the_same(tmp_path: Path) -> None:
    network = ManiqaMini(SMALL).eval()
    save_network(tmp_path, network, "m1")
    slices = torch.randn(2, 2, 128, 128), torch.zeros(2, len(LEVELS), dtype=torch.long), torch.ones(2)
    with torch.inference_mode():
        pairs = zip(network(*slices), load_network(tmp_path, ManiqaMini, "m1")(*slices), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_other_versions_are_refused(stored: Path) -> None:
    with pytest.raises(UnusableModel, match="metrics version m1, this installation has m2"):
        load_network(stored, ManiqaMini, "m2")
    rewrite(stored, versions={"input": "1", "prompt vocabulary": "0", "metrics": "m1"})
    with pytest.raises(UnusableModel, match="prompt vocabulary version 0"):
        load_network(stored, ManiqaMini, "m1")


def test_a_changed_weight_file_is_refused(stored: Path) -> None:
    path = stored / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnusableModel, match="SHA-256"):
        load_network(stored, ManiqaMini, "m1")
    path.unlink()
    with pytest.raises(UnusableModel, match="is missing"):
        load_network(stored, ManiqaMini, "m1")


def test_weights_of_another_size_are_refused_by_name_and_shape(stored: Path) -> None:
    config = json.loads((stored / DESCRIPTION_FILE).read_text())["config"]
    rewrite(stored, config=config | {"width": 16})
    with pytest.raises(UnusableModel, match=r"tensors differ, first \S+ \(stored \(.*\), expected \(.*\)\)"):
        load_network(stored, ManiqaMini, "m1")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "resnet"}, "of kind 'resnet', 'maniqa-mini' is needed"),
        ({"config": {"width": 8}}, "sizes of maniqa-mini do not fit"),
        ({"config": None}, "sizes of maniqa-mini do not fit"),
        ({"format": "9"}, "file format version 9"),
        ({"versions": None}, "describes no network"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(stored: Path, changes: dict, reason: str) -> None:
    rewrite(stored, **changes)
    with pytest.raises(UnusableModel, match=reason):
        load_network(stored, ManiqaMini, "m1")


def test_sizes_that_no_tensor_shows_cannot_be_changed_unnoticed(stored: Path) -> None:
    path = stored / DESCRIPTION_FILE
    path.write_text(path.read_text().replace('"scale": 0.8', '"scale": 0.1'))
    with pytest.raises(UnusableModel, match="was changed after it was written"):
        load_network(stored, ManiqaMini, "m1")


@pytest.mark.parametrize("size", [{"width": "wide"}, {"window": 0}, {"channels": [-8, 8, 8]}])
def test_impossible_sizes_are_refused(stored: Path, size: dict) -> None:
    config = json.loads((stored / DESCRIPTION_FILE).read_text())["config"]
    rewrite(stored, config=config | size)
    with pytest.raises(UnusableModel, match="no network can have the sizes"):
        load_network(stored, ManiqaMini, "m1")


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_description_is_refused(stored: Path, content: str) -> None:
    (stored / DESCRIPTION_FILE).write_text(content)
    with pytest.raises(UnusableModel):
        load_network(stored, ManiqaMini, "m1")


def test_only_known_networks_are_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no architecture"):
        save_network(tmp_path, torch.nn.Linear(1, 1), "m1")
