"""What goes wrong in the receive chain: coil, field of view, interference and spikes."""

from dataclasses import replace

import numpy as np

from ai.simulation.artifacts.severity import strength
from ai.simulation.kspace import KSpace, along, to_image, to_kspace

SPIKE_OF_PEAK = (0.04, 0.09, 0.20, 0.45, 1.00)
BIAS_DYNAMIC_RANGE = (2.5, 6.0, 16.0, 60.0, 250.0)
WRAP_PERIOD_OF_SHOWN = (1.05, 0.95, 0.82, 0.68, 0.55)
ZIPPER_OF_TYPICAL = (0.15, 0.4, 1.0, 3.0, 10.0)
"""Mean brightness of the interference line relative to the root mean square of the image."""
ZIPPER_LINES = 3
"""Neighbouring frequencies that an unstable transmitter covers."""


def spike(kspace: KSpace, severity: float, rng: np.random.Generator) -> KSpace:
    """One electrical spike per slice: a single sample of huge value, seen as stripes across the image."""
    data = kspace.data.copy()
    slices, rows, columns = data.shape
    for index in range(slices):
        radius, angle = rng.uniform(0.08, 0.35), rng.uniform(0, 2 * np.pi)
        row = int(rows // 2 + radius * rows * np.sin(angle))
        column = int(columns // 2 + radius * columns * np.cos(angle))
        peak = strength(SPIKE_OF_PEAK, severity) * np.abs(data[index]).max()
        data[index, row, column] += peak * np.exp(1j * rng.uniform(0, 2 * np.pi))
    return replace(kspace, data=data)


def bias(kspace: KSpace, severity: float, rng: np.random.Generator) -> KSpace:
    """A failed coil element or missing normalisation: sensitivity falls exponentially across the image."""
    _, rows, columns = kspace.data.shape
    angle = rng.uniform(0, 2 * np.pi)
    row, column = np.linspace(-0.5, 0.5, rows)[:, None], np.linspace(-0.5, 0.5, columns)[None, :]
    fall = np.log(strength(BIAS_DYNAMIC_RANGE, severity, clean=1.0)) * (row * np.sin(angle) + column * np.cos(angle))
    return replace(kspace, data=to_kspace(to_image(kspace.data) * np.exp(fall).astype(np.float32)))


def wrap(kspace: KSpace, severity: float, _rng: np.random.Generator) -> KSpace:
    """Too little phase oversampling: what lies outside the sampled field of view folds in from the other side."""
    axis = kspace.phase_axis
    image = np.moveaxis(to_image(kspace.data), axis, -1)
    size = image.shape[-1]
    oversampling = kspace.extent_mm[axis - 1] / kspace.shown_mm[axis - 1]
    period = max(1, round(strength(WRAP_PERIOD_OF_SHOWN, severity, clean=oversampling) * size / oversampling))
    centred = np.arange(size) - size // 2
    folded = np.zeros((*image.shape[:-1], period), np.complex64)
    for cell in range(int(centred.min()) // period, int(centred.max()) // period + 1):
        inside = np.flatnonzero(centred // period == cell)
        folded[..., centred[inside] % period] += image[..., inside]
    return replace(kspace, data=to_kspace(np.moveaxis(folded[..., centred % period], -1, axis)))


def zipper(kspace: KSpace, severity: float, rng: np.random.Generator) -> KSpace:
    """Radio interference (an open door): a bright dashed line along phase at the transmitter's frequency.

    The transmitter is not in phase with the excitations, so each phase line meets it with a phase of its own.
    """
    data = kspace.data
    axis = 3 - kspace.phase_axis
    samples, lines = data.shape[axis], kspace.phase_lines
    shown = kspace.shown_mm[axis - 1] / kspace.extent_mm[axis - 1]
    position = round(rng.uniform(-0.4, 0.4) * shown * samples)
    brightness = strength(ZIPPER_OF_TYPICAL, severity) * np.sqrt((np.abs(data) ** 2).sum(axis=(1, 2), keepdims=True))
    added = np.zeros_like(data)
    for line in range(ZIPPER_LINES):
        frequency = position + line - ZIPPER_LINES // 2
        wave = np.exp(-2j * np.pi * frequency * (np.arange(samples) - samples // 2) / samples)
        turns = kspace.along_phase(np.exp(2j * np.pi * rng.uniform(0, 1, lines)))
        added += (along(axis, wave) * turns / (samples * np.sqrt(lines))).astype(np.complex64)
    return replace(kspace, data=data + brightness.astype(np.float32) * added)
