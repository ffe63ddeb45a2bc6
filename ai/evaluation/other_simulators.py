"""Artefacts of simulators that are not ours, for testing only: TorchIO (Perez-Garcia et al. 2021) and MONAI.

A model that knows only its own simulator may have learned the simulator (the inverse crime). These work on magnitude
images without knowing the acquisition, which is physically cruder and, for a test, the point. TorchIO corrupts k-space
along the last axis of the array, here the columns, whatever the header says.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
import torchio
from monai.transforms import GibbsNoise, KSpaceSpikeNoise, RandRicianNoise
from numpy.typing import NDArray

from ai.quality.salience import salient_slices
from ai.simulation.substrate import Substrate, degrade, substrate_of
from ai.training.quality_cases import CaseSet
from ai.training.quality_sampler import LEVELS, SLICES_PER_CASE, Artifacts, Plan, sample_plan
from ai.training.substrates import CleanSeries

Volume3D = NDArray[np.float32]
Spacing = tuple[float, float, float]
Change = Callable[[Volume3D, Spacing, float, int], Volume3D]
"""Volume float32 [slice, row, column] scaled to 0..1, spacing in mm, severity 0..5, seed -> the volume, changed."""


def _torchio(transform: torchio.Transform, volume: Volume3D, spacing_mm: Spacing, seed: int) -> Volume3D:
    torch.manual_seed(seed)
    image = torchio.ScalarImage(tensor=torch.from_numpy(volume[None]), affine=np.diag([*spacing_mm, 1.0]))
    return np.asarray(transform(torchio.Subject(image=image)).image.data[0].numpy(), np.float32)


def _motion(volume: Volume3D, spacing_mm: Spacing, severity: float, seed: int) -> Volume3D:
    transform = torchio.RandomMotion(degrees=1.2 * severity, translation=1.2 * severity, num_transforms=3)
    return _torchio(transform, volume, spacing_mm, seed)


def _ghosting(volume: Volume3D, spacing_mm: Spacing, severity: float, seed: int) -> Volume3D:
    strength = 0.25 * severity
    transform = torchio.RandomGhosting(num_ghosts=(5, 7), axes=(2,), intensity=(strength, strength), restore=0.02)
    return _torchio(transform, volume, spacing_mm, seed)


def _spike(volume: Volume3D, _spacing_mm: Spacing, severity: float, seed: int) -> Volume3D:
    """MONAI's spike: one sample of every slice set to a log intensity above the slice's own mean."""
    rng = np.random.default_rng(seed)
    changed = np.empty_like(volume)
    for index, one in enumerate(volume):
        spectrum = np.log(np.abs(np.fft.fftshift(np.fft.fft2(one))) + 1e-10)
        where = tuple(int(size * (0.5 + rng.choice([-1, 1]) * rng.uniform(0.06, 0.3))) for size in one.shape)
        intensity = float(spectrum.max() - 3.2 + 0.6 * severity)
        spiked = KSpaceSpikeNoise([(0, *where)], [intensity])(torch.from_numpy(one[None]))
        changed[index] = np.asarray(spiked)[0]
    return changed


def _noise(volume: Volume3D, _spacing_mm: Spacing, severity: float, seed: int) -> Volume3D:
    transform = RandRicianNoise(prob=1.0, mean=0.0, std=0.035 * severity, relative=False, sample_std=False)
    transform.set_random_state(seed)
    return np.asarray(transform(torch.from_numpy(volume)), np.float32)


def _gibbs(volume: Volume3D, _spacing_mm: Spacing, severity: float, _seed: int) -> Volume3D:
    transform = GibbsNoise(alpha=min(0.45 + 0.1 * severity, 0.97))
    return np.stack([np.asarray(transform(torch.from_numpy(one[None])))[0] for one in volume]).astype(np.float32)


def _blur(volume: Volume3D, spacing_mm: Spacing, severity: float, seed: int) -> Volume3D:
    sd_mm = 0.3 * severity
    return _torchio(torchio.RandomBlur(std=(0, 0, sd_mm, sd_mm, sd_mm, sd_mm)), volume, spacing_mm, seed)


def _bias(volume: Volume3D, spacing_mm: Spacing, severity: float, seed: int) -> Volume3D:
    return _torchio(torchio.RandomBiasField(coefficients=0.25 * severity, order=3), volume, spacing_mm, seed)


CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        "motion": _motion,
        "ghosting": _ghosting,
        "spike": _spike,
        "noise": _noise,
        "gibbs": _gibbs,
        "blur": _blur,
        "bias": _bias,
    }
)
"""By the name of the artefact of ours that it resembles."""


def sample_elsewhere(series: CleanSeries, seed: int) -> CaseSet:
    """The cases of a series with the artefacts of the other simulators.

    Raises:
        ValueError: as ``ai.training.quality_sampler.sample``.
    """
    substrate = substrate_of(series.volume, series.entry.role, series.patient)
    slices = tuple(choice.index for choice in salient_slices(series.volume, SLICES_PER_CASE))
    corruptions: list[Artifacts] = [((name, level + 0.3),) for name in CHANGES for level in LEVELS]
    return sample_plan(series, substrate, Plan(((), *corruptions), slices), seed, _change, "torchio and monai")


def _change(substrate: Substrate, artifacts: Artifacts, seed: int, slices: Sequence[int]) -> Volume3D:
    """The clean reference is that of our own round trip, so that only the artefact differs."""
    if not artifacts:
        return degrade(substrate, None, 0.0, seed, slices)
    whole = degrade(substrate, None, 0.0, seed, range(len(substrate.pixels)))
    top = float(np.percentile(whole, 99.5))
    for name, severity in artifacts:
        whole = np.clip(CHANGES[name](whole / top, substrate.spacing_mm, severity, seed), 0, None) * top
    return np.asarray(whole[list(slices)], np.float32)
