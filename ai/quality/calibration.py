"""A site's calibration of the quality score: probability of being non-diagnostic, and verdicts with known error rates.

Made by ``ai.quality.commissioning`` from series that people of the site have graded; this module keeps, checks and
applies it. Per family of sequences it holds

- a falling curve from score to probability (Platt 1999, or isotonic regression, Zadrozny and Elkan 2002);
- two class-conditional split-conformal thresholds on the score (Vovk et al., Algorithmic Learning in a Random World,
  2005, section 4.5; Mondrian taxonomy: the class). A score up to ``bad_up_to`` is plausible for a non-diagnostic
  series, one from ``good_from`` on is plausible for any other. What is plausible for one of them alone is
  *non-diagnostic* or *diagnostic*; what is plausible for both, or for neither, is *limited*: somebody should look.

The thresholds are placed on the score, not on the probability: the score has not seen the site's grades, so all of them
count for the thresholds and none need be set aside.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np

from ai.quality.definitions import METRICS_VERSION
from ai.quality.scoring import CRITERIA, LIMITED_BELOW, score_definition
from ai.quality.types import CalibrationStamp, SeriesAssessment, Verdict
from ai.volumes.types import Role

FORMAT: Final = "pacsgate quality calibration"
FORMAT_VERSION: Final = "1"
MAXIMUM_FILE_BYTES: Final = 1 << 22

FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "t2w": (Role.T2W_AXIAL, Role.T2W_SAGITTAL, Role.T2W_CORONAL),
        "dwi": (Role.DWI,),
        "diffusion-map": (Role.ADC, Role.DWI_CALCULATED),
        "t1w": (Role.T1W, Role.DCE),
    }
)
"""Roles whose scores are made alike and are therefore calibrated together."""

SHIPPED: Final = CalibrationStamp(
    "cut points as shipped", "", "", score_definition(tuple(CRITERIA)), f"rules, metrics {METRICS_VERSION}"
)
"""What judges where a site has no calibration: the published cut points, which promise no error rate."""


class CalibrationError(ValueError):
    """A calibration cannot be made or used; the message says which and what to do."""


def family_of(role: str) -> str | None:
    """The family a role is calibrated with; None for a role without score."""
    return next((family for family, roles in FAMILIES.items() if role in roles), None)


@dataclass(frozen=True)
class FamilyCalibration:
    """The calibration of one family.

    ``method`` is platt or isotonic; ``curve`` has points (score, probability) by rising score and falling probability;
    ``figures`` is the document of ``ai.quality.commissioning.Figures``; ``definition`` is that of the score calibrated.
    """

    method: str
    curve: tuple[tuple[float, float], ...]
    bad_up_to: float
    good_from: float
    definition: str
    figures: Mapping[str, Any]

    def probability(self, score: float) -> float:
        """Probability that a series of this score is non-diagnostic."""
        scores, probabilities = zip(*self.curve, strict=True)
        return float(np.interp(score, scores, probabilities))

    def decide(self, score: float) -> Verdict:
        """Diagnostic or non-diagnostic where only that is plausible, else limited."""
        bad, good = score <= self.bad_up_to, score >= self.good_from
        if bad == good:
            return Verdict.LIMITED
        return Verdict.NON_DIAGNOSTIC if bad else Verdict.DIAGNOSTIC

    @property
    def limited_at(self) -> float:
        """Probability from which on a series is limited at best."""
        return self.probability(max(self.bad_up_to, self.good_from))

    @property
    def non_diagnostic_at(self) -> float:
        """Probability from which on a series is non-diagnostic."""
        return self.probability(min(self.bad_up_to, self.good_from))


@dataclass(frozen=True)
class Calibration:
    """The commissioning record: what was calibrated, by whom, when, on what, and how well it did.

    Attributes:
        name: what the calibration is called, for example the site and scanner.
        by: who graded and answers for it.
        when: moment in UTC, ISO 8601.
        note: anything a later reader should know.
        labels_sha256: SHA-256 over the grades, so that the list they came from can be recognised.
        alpha: error rate the thresholds are made for.
        prevalence: share of non-diagnostic series the probabilities are for; None: that among the graded series.
        families: family -> its calibration.
        refused: family -> why it has none; it keeps the shipped cut points.
    """

    name: str
    by: str
    when: str
    note: str
    labels_sha256: str
    alpha: float
    prevalence: float | None
    families: Mapping[str, FamilyCalibration]
    refused: Mapping[str, str]

    def probability(self, score: float, family: str) -> float:
        """Probability that a series of this family is non-diagnostic. Raises CalibrationError for one without."""
        return self._family(family).probability(score)

    def decide(self, score: float, family: str) -> Verdict:
        """The verdict on a series of this family. Raises CalibrationError for one without."""
        return self._family(family).decide(score)

    def covers(self, role: str) -> bool:
        """Whether series of this role are judged by it."""
        return family_of(role) in self.families

    def apply(self, series: SeriesAssessment) -> SeriesAssessment:
        """The assessment with probability and verdict of this calibration; as it was where the role is not covered.

        Single ruined slices, which the score does not show, still limit a series.
        """
        if not self.covers(series.role) or series.score is None:
            return series
        own = self.families[str(family_of(series.role))]
        verdict = own.decide(series.score)
        if series.verdict is Verdict.LIMITED and series.score >= LIMITED_BELOW and verdict is Verdict.DIAGNOSTIC:
            verdict = Verdict.LIMITED
        reason = series.reason
        if verdict is not series.verdict:
            reason = f"score {series.score:.2f} is {verdict} by calibration {self.name}; by the cut points as shipped "
            reason += f"{series.verdict}: {series.reason}"
        return replace(
            series,
            verdict=verdict,
            reason=reason,
            probability_non_diagnostic=own.probability(series.score),
            calibration=self.stamp,
        )

    def stamp_for(self, role: str) -> CalibrationStamp | None:
        """What an assessment of a series of this role is stamped with; None where the shipped cut points judge it."""
        return self.stamp if self.covers(role) else None

    @property
    def stamp(self) -> CalibrationStamp:
        """What results say of it."""
        return CalibrationStamp(self.name, self.by, self.when, self.sha256, FORMAT_VERSION)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the record's content: recognises it, and shows a later change; it does not prove who made it."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    @property
    def guarantee(self) -> str:
        """What the thresholds promise, and under what condition."""
        return (
            f"Of new patients with a non-diagnostic series, at most {self.alpha:.0%} are expected to have one called "
            f"diagnostic; of patients with other series, at most {self.alpha:.0%} to have one called non-diagnostic. "
            "This holds on average over commissionings, and only for patients exchangeable with the graded ones: same "
            "scanners, protocols, patients and graders. It does not hold after any of these has changed: commission "
            "again."
        )

    def save(self, path: Path) -> None:
        """Write the record as JSON. Raises FileExistsError: a record that may be in use is never overwritten."""
        document = {"format": FORMAT, "version": FORMAT_VERSION, **self._content(), "sha256": self.sha256}
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record.

        Raises:
            CalibrationError: it cannot be read, was changed after it was made, or was made for other scores than this
                version gives.
        """
        try:
            with path.open("rb") as file:
                content = file.read(MAXIMUM_FILE_BYTES + 1)
        except OSError as error:
            raise CalibrationError(f"calibration {path} cannot be read: {error.strerror}") from error
        if len(content) > MAXIMUM_FILE_BYTES:
            raise CalibrationError(f"calibration {path} is too long to be one")
        try:
            return cls._from_document(json.loads(content))
        except CalibrationError as error:
            raise CalibrationError(f"calibration {path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"calibration {path} is no record of `pacsgate train calibrate` ({type(error).__name__}: {error})"
            ) from error

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> Self:
        if document["format"] != FORMAT or document["version"] != FORMAT_VERSION:
            raise CalibrationError(f"format {document['format']} {document['version']} is not known; commission again")
        families = {name: _family_from(entry) for name, entry in document["families"].items()}
        keys = ("name", "by", "when", "note", "labels_sha256", "alpha", "prevalence", "refused")
        found = cls(families=families, **{key: document[key] for key in keys})
        if found.sha256 != document["sha256"]:
            raise CalibrationError("it was changed after it was made; use the original, or commission again")
        for name, family in families.items():
            _check(name, family)
        return found

    def _content(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(replace(self, families=dict(self.families), refused=dict(self.refused)))))

    def _family(self, family: str) -> FamilyCalibration:
        if family not in self.families:
            why = f": {self.refused[family]}" if family in self.refused else ""
            raise CalibrationError(f"calibration {self.name} has no {family}{why}")
        return self.families[family]


def _family_from(entry: Mapping[str, Any]) -> FamilyCalibration:
    points = tuple((float(score), float(probability)) for score, probability in entry["curve"])
    return FamilyCalibration(**{**entry, "curve": points})


def _check(name: str, family: FamilyCalibration) -> None:
    """Refuse what would judge by other rules than those commissioned."""
    if name not in FAMILIES:
        raise CalibrationError(f"{name} is no family; there are {', '.join(FAMILIES)}")
    if family.definition != score_definition(FAMILIES[name]):
        raise CalibrationError(f"the score of {name} is computed differently by this version; commission again")
    scores, probabilities = np.array(family.curve).T
    if not (np.all(np.diff(scores) > 0) and np.all(np.diff(probabilities) <= 0)):
        raise CalibrationError(f"the curve of {name} does not fall with the score")
    if probabilities[-1] < 0 or probabilities[0] > 1:
        raise CalibrationError(f"the curve of {name} leaves 0 to 1")
