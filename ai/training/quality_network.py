"""Trains the network in two stages: physical parameters first, then damage (MedIQA, arXiv 2507.19004).

Upstream: noise, resolution, field, echo and repetition time and b-value from the image, masked where not known.
Downstream: damage as a whole and per concept (cross-entropy on 0..1), and its order within one slice of one anatomy
(RankNet, Burges et al. 2005), which costs no label. A quarter of the upstream loss stays on, so that physics is kept.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from ai.quality.network.maniqa import ManiqaMini, SliceQuality
from ai.training.quality_cases import CaseSet
from ai.training.quality_forest import slice_weights

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Schedule:
    """How long and how hard. ``batch`` counts slices; half of them are partners of the other half."""

    upstream_steps: int = 200
    downstream_steps: int = 800
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up: int = 60
    rank_margin: float = 0.02
    checkpoint_every: int = 200

    @classmethod
    def lasting(cls, steps: int) -> "Schedule":
        """The default schedule drawn out or pressed together to ``steps`` in all."""
        usual = cls()
        share = steps / (usual.upstream_steps + usual.downstream_steps)
        upstream = round(share * usual.upstream_steps)
        return cls(upstream, steps - upstream, warm_up=max(1, round(share * usual.warm_up)))


UPSTREAM_SHARE = 0.25
RANK_SHARE = 0.5


@dataclass(frozen=True)
class Batch:
    """Tensors of one step on the device."""

    inputs: Tensor
    prompts: Tensor
    pixel_mm: Tensor
    damage: Tensor
    concepts: Tensor
    physics: Tensor


class Sampler:
    """Draws slices so that vendors and patients weigh alike, each beside itself with another corruption."""

    def __init__(self, cases: CaseSet, seed: int) -> None:
        self._slices = cases.slices
        self._rng = np.random.default_rng([seed, 17])
        weights = slice_weights(cases).astype(np.float64)
        self._chance = weights / weights.sum()
        self._group = _same_slice(cases)
        order = np.argsort(self._group, kind="stable")
        self._order = order
        self._start = np.searchsorted(self._group[order], np.arange(self._group.max() + 2))
        self.physics_mean = np.nanmean(cases.slices.physics, axis=0)
        self.physics_sd = np.maximum(np.nanstd(cases.slices.physics, axis=0), 1e-3)

    def rows(self, size: int) -> NDArray[np.intp]:
        """``size`` rows; the second half are the partners of the first."""
        first = self._rng.choice(len(self._chance), size // 2, p=self._chance)
        low, high = self._start[self._group[first]], self._start[self._group[first] + 1]
        partner = self._order[self._rng.integers(low, high)]
        return np.concatenate([first, partner])

    def batch(self, schedule: Schedule, device: torch.device) -> Batch:
        """One augmented batch: flips, and another gain of the contrast."""
        rows = self.rows(schedule.batch)
        part = self._slices.take(rows)
        inputs = part.inputs.astype(np.float32)
        half = len(rows) // 2
        for axis in (2, 3):
            flip = np.tile(self._rng.random(half) < 0.5, 2)  # a pair is flipped together
            inputs[flip] = np.flip(inputs[flip], axis)
        inputs[:, 0] *= self._rng.uniform(0.85, 1.15, (len(rows), 1, 1)).astype(np.float32)
        prompts = part.prompts.astype(np.int64)
        physics = (part.physics - self.physics_mean) / self.physics_sd
        tensors = (inputs, prompts, part.pixel_mm, 1.0 - part.similarity, part.concepts, physics.astype(np.float32))
        return Batch(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in tensors))


def _same_slice(cases: CaseSet) -> NDArray[np.intp]:
    """A number per row that is the same for the same slice of the same series."""
    case = cases.slices.case
    first = np.searchsorted(case, case, side="left")
    position = np.arange(len(case)) - first
    names = {name: number for number, name in enumerate(sorted({one.substrate for one in cases.cases}))}
    series = np.array([names[one.substrate] for one in cases.cases])[case]
    _, group = np.unique(series * 1000 + position, return_inverse=True)
    return np.asarray(group, np.intp)


def train_network(
    cases: CaseSet,
    model: ManiqaMini,
    schedule: Schedule,
    seed: int,
    progress: Progress,
    device: torch.device | None = None,
    checkpoint: Path | None = None,
) -> ManiqaMini:
    """Train in place and return the model, on the CPU and in evaluation mode.

    Args:
        checkpoint: where the state is kept every ``checkpoint_every`` steps; a run that finds one goes on from there.
    """
    chosen = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    model.to(chosen).train()
    sampler = Sampler(cases, seed)
    optimiser = torch.optim.AdamW(model.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay)
    total = schedule.upstream_steps + schedule.downstream_steps
    step = _resume(checkpoint, model, optimiser)
    running = 0.0
    while step < total:
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * _rate(step, schedule)
        batch = sampler.batch(schedule, chosen)
        with torch.autocast(chosen.type, torch.bfloat16, enabled=chosen.type == "cuda"):
            output = model(batch.inputs, batch.prompts, batch.pixel_mm)
            upstream = step < schedule.upstream_steps
            loss = physics_loss(output, batch) if upstream else downstream_loss(output, batch, schedule.rank_margin)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        running = loss.item() if running == 0.0 else 0.95 * running + 0.05 * loss.item()
        if step == schedule.upstream_steps:
            running = 0.0
        if step % 50 == 0 or step == total:
            progress(f"{'upstream' if upstream else 'downstream'} step {step} of {total}: loss {running:.4f}")
        if checkpoint is not None and (step % schedule.checkpoint_every == 0 or step == total):
            _keep(checkpoint, model, optimiser, step)
    return model.to("cpu").eval()


def _rate(step: int, schedule: Schedule) -> float:
    """Warm-up, then half a cosine, once per stage."""
    upstream = step < schedule.upstream_steps
    done = step if upstream else step - schedule.upstream_steps
    length = schedule.upstream_steps if upstream else schedule.downstream_steps
    if done < schedule.warm_up:
        return (done + 1) / schedule.warm_up
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - schedule.warm_up) / max(1, length - schedule.warm_up)))


def physics_loss(output: SliceQuality, batch: Batch) -> Tensor:
    """Mean absolute error of the standardised parameters that are known."""
    known = torch.isfinite(batch.physics)
    error = functional.smooth_l1_loss(output.physics, torch.nan_to_num(batch.physics), reduction="none")
    return (error * known).sum() / known.sum().clamp(min=1)


def downstream_loss(output: SliceQuality, batch: Batch, rank_margin: float) -> Tensor:
    """Cross-entropy of damage and of the known concepts, order within a slice, and a share of the upstream loss."""
    damage = functional.binary_cross_entropy_with_logits(output.damage, batch.damage)
    known = torch.isfinite(batch.concepts)
    each = functional.binary_cross_entropy_with_logits(
        output.concepts, torch.nan_to_num(batch.concepts), reduction="none"
    )
    concepts = (each * known).sum() / known.sum().clamp(min=1)
    order = rank_loss(output.damage, batch.damage, rank_margin)
    return damage + concepts + RANK_SHARE * order + UPSTREAM_SHARE * physics_loss(output, batch)


def rank_loss(logits: Tensor, damage: Tensor, margin: float) -> Tensor:
    """RankNet between the halves of the batch; pairs whose damage differs by less than ``margin`` do not count."""
    half = len(logits) // 2
    difference = damage[:half] - damage[half:]
    counts = difference.abs() > margin
    each = functional.softplus(-torch.sign(difference) * (logits[:half] - logits[half:]))
    return (each * counts).sum() / counts.sum().clamp(min=1)


def _keep(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, partial)
    partial.replace(path)


def kept_network(checkpoint: Path) -> ManiqaMini:
    """The network of a finished training, in evaluation mode. Raises OSError where there is no such file."""
    model = ManiqaMini()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    return model.eval()


def _resume(path: Path | None, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if path is None or not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def predict(model: ManiqaMini, cases: CaseSet, batch: int = 64) -> Iterator[SliceQuality]:
    """The model's outputs for every slice, in order, batch by batch, on the CPU."""
    model.eval()
    rows = cases.slices
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            part = rows.take(np.arange(start, min(start + batch, len(rows))))
            yield model(
                torch.from_numpy(part.inputs.astype(np.float32)),
                torch.from_numpy(part.prompts.astype(np.int64)),
                torch.from_numpy(part.pixel_mm),
            )
