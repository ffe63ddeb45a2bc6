"""Artefacts made where they arise: in k-space, along the phase-encode axis, in the order of the echo trains.

One module per cause. ``ARTIFACTS`` lists them in the order in which they act on a scan: what the object does, how the
field encodes it, what the receiver makes of it, which samples are kept, and at last the noise.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ai.simulation.artifacts.echo_planar import distortion, dropout, eddy, nyquist_ghost
from ai.simulation.artifacts.fat import fat_shift
from ai.simulation.artifacts.ghosts import ghosting
from ai.simulation.artifacts.motion import motion
from ai.simulation.artifacts.noise import low_averages, noise, noise_floor
from ai.simulation.artifacts.receive import bias, spike, wrap, zipper
from ai.simulation.artifacts.resolution import blur, gibbs, t2_blur
from ai.simulation.artifacts.severity import SEVERITIES, WORST, Artifact, check_severity
from ai.simulation.protocol import T2_KINDS, SeriesKind

_ECHO_PLANAR = frozenset({SeriesKind.DWI})
_ALL_ACQUIRED = T2_KINDS | _ECHO_PLANAR | {SeriesKind.DCE}

ARTIFACTS: Mapping[str, Artifact] = MappingProxyType(
    {
        artifact.name: artifact
        for artifact in (
            Artifact("motion", "patient motion between echo trains", T2_KINDS, motion, needs_neighbours=True),
            Artifact(
                "dropout",
                "void by dephasing beside rectal gas",
                _ECHO_PLANAR,
                dropout,
                needs_gas=True,
                needs_neighbours=True,
            ),
            Artifact("fat-shift", "unsuppressed fat, displaced along phase", _ECHO_PLANAR, fat_shift, needs_fat=True),
            Artifact("distortion", "echo-planar distortion by rectal gas", _ECHO_PLANAR, distortion, needs_gas=True),
            Artifact("eddy", "eddy-current shift, shear and scale between b-values", _ECHO_PLANAR, eddy),
            Artifact("bias", "uneven receive sensitivity", _ALL_ACQUIRED, bias),
            Artifact("wrap", "fold-over along the phase axis", _ALL_ACQUIRED, wrap, beyond_view=True),
            Artifact("t2-blur", "decay along a long echo train", T2_KINDS, t2_blur),
            Artifact("blur", "loss of sharpness", _ALL_ACQUIRED, blur),
            Artifact("ghosting", "periodic ghosts along the phase axis", _ALL_ACQUIRED, ghosting),
            Artifact("nyquist-ghost", "ghost at half the field of view", _ECHO_PLANAR, nyquist_ghost),
            Artifact("zipper", "radio interference (a line along phase)", _ALL_ACQUIRED, zipper, per_slice=True),
            Artifact("spike", "electrical spikes (stripes)", _ALL_ACQUIRED, spike, per_slice=True),
            Artifact("gibbs", "ringing of few phase lines", _ALL_ACQUIRED, gibbs),
            Artifact("noise", "low signal-to-noise ratio", _ALL_ACQUIRED, noise),
            Artifact("low-averages", "too few averages of a coil array", _ALL_ACQUIRED, low_averages),
            Artifact("noise-floor", "noise floor of averaged magnitudes", _ECHO_PLANAR, noise_floor),
        )
    }
)
"""Every artefact by name. ADC is computed from what the DWI series became; every frame of a DCE series is ruined alike.

What happens between the frames is in ``ai.simulation.artifacts.dynamic``.
"""

__all__ = ["ARTIFACTS", "SEVERITIES", "WORST", "Artifact", "check_severity"]
