"""The quality report read back: groups, codes, references, the three states, and sameness."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pydicom
import pytest
from highdicom.sr import srread
from pydicom import Dataset
from pydicom.sr.coding import Code

from ai.detection.types import Algorithm, DetectionResult, DetectionState
from ai.quality.types import Metric, Verdict
from node.results import codes
from node.results.identity import ResultIdentity
from node.results.quality_report import MAX_WORST_SLICES, quality_report
from node.results.source import SourceError, SourceStudy
from node.results.write import to_bytes
from tests.fixtures.calibrations import calibration_of_t2w

ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
RID = {Verdict.DIAGNOSTIC: "RID12", Verdict.LIMITED: "RID13", Verdict.NON_DIAGNOSTIC: "RID14"}
FAILED = DetectionResult(DetectionState.FAILED, "The ADC map is upside down.", Algorithm("baseline", "1.2"))
SHUT = DetectionResult(DetectionState.NOT_ATTEMPTED, "Gate shut.", Algorithm("baseline", "1.2"))


def items(node: Dataset) -> Iterator[Dataset]:
    """Every content item below ``node``."""
    for item in node.get("ContentSequence", ()):
        yield item
        yield from items(item)


def named(node: Dataset, code: Code) -> list[Dataset]:
    return [i for i in items(node) if i.ConceptNameCodeSequence[0].CodeValue == code.value]


def values(node: Dataset, code: Code) -> list[str]:
    return [i.ConceptCodeSequence[0].CodeValue for i in named(node, code)]


def root_evaluations(report: Dataset) -> Dataset:
    (container,) = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "C0034375"]
    return container


def groups(report: Dataset) -> list[Dataset]:
    return [i for i in items(report) if i.ConceptNameCodeSequence[0].CodeValue == "125007"]


def comments(node: Dataset) -> list[str]:
    return [str(i.TextValue) for i in named(node, codes.COMMENT)]


def read_back(report: Dataset) -> Dataset:
    return pydicom.dcmread(BytesIO(to_bytes(report)))


@pytest.fixture(scope="module")
def headers(make: Any) -> dict[str, Dataset]:
    """Five series of one study, the last with fewer columns."""
    study: dict[str, Dataset] = {}
    for number in range(1, 6):
        series = make.headers(
            slices=5, SeriesNumber=number, PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100"
        )
        for header in series.values():
            header.StudyInstanceUID = next(iter(study.values()), header).StudyInstanceUID
        study |= series
    return study


@pytest.fixture(scope="module")
def source(headers: dict[str, Dataset]) -> SourceStudy:
    return SourceStudy(headers)


def test_one_1501_group_per_series_with_unique_tracking(
    make: Any, headers: dict[str, Dataset], source: SourceStudy
) -> None:
    assessment = make.assessment(headers)
    report = read_back(quality_report(source, assessment, None, make.identity(headers)))
    assert len(groups(report)) == len(assessment.series) == 5
    assert {group.ContentTemplateSequence[0].TemplateIdentifier for group in groups(report)} == {"1501"}
    assert [i.UID for i in named(report, codes.SERIES_INSTANCE_UID)] == [
        s.series_instance_uid for s in assessment.series
    ]
    tracking = [i.UID for i in named(report, Code("112040", "DCM", "Tracking Unique Identifier"))]
    assert len(set(tracking)) == len(tracking) == 5
    assert len(named(report, Code("112039", "DCM", "Tracking Identifier"))) == 5
    assert values(report, Code("121058", "DCM", "Procedure reported")) == ["126020"]
    parsed = srread(BytesIO(to_bytes(report)))
    assert len(parsed.content.get_image_measurement_groups()) == 5


def test_group_says_what_the_assessment_says(make: Any, headers: dict[str, Dataset], source: SourceStudy) -> None:
    assessment = make.assessment(headers)
    report = read_back(quality_report(source, assessment, None, make.identity(headers)))
    for group, series in zip(groups(report), assessment.series, strict=True):
        numbers = {
            i.ConceptNameCodeSequence[0].CodeValue: i.MeasuredValueSequence[0]
            for i in items(group)
            if i.ValueType == "NUM"
        }
        assessed = series.verdict is not Verdict.NOT_ASSESSED
        rids = [value for value in values(group, codes.QUALITY_ASSESSMENT) if value.startswith("RID")]
        assert rids == ([RID[series.verdict]] if assessed else [])
        assert values(group, codes.SUMMARY_OF_ANALYSES) == ["111222" if assessed else "111225"]
        assert values(group, codes.QUALITY_FINDING) == ["RID11423"]
        assert ("111029" in numbers) == assessed
        if assessed:
            assert float(numbers["111029"].NumericValue) == pytest.approx(series.score)
        assert float(numbers["113060"].NumericValue) == 21.5
        assert "CNR" not in numbers  # it could not be computed
        assert series.reason in comments(group)
        assert "Made-up length: 3.25 mm" in comments(group)  # no code, but not lost


@pytest.mark.parametrize(
    ("verdict", "meets", "expected"),
    [
        (Verdict.DIAGNOSTIC, True, {"RID12", "111237"}),
        (Verdict.LIMITED, False, {"RID13", "111236"}),
        (Verdict.NON_DIAGNOSTIC, True, {"RID14", "111235"}),
        (Verdict.NON_DIAGNOSTIC, None, {"RID14"}),
        (Verdict.NOT_ASSESSED, True, set()),
    ],
)
def test_standard_met_or_not(
    make: Any,
    headers: dict[str, Dataset],
    source: SourceStudy,
    verdict: Verdict,
    meets: bool | None,
    expected: set[str],
) -> None:
    assessment = make.assessment(headers)
    one = replace(assessment.series[0], verdict=verdict, meets_standard=meets)
    report = quality_report(source, replace(assessment, series=(one,)), None, make.identity(headers))
    (group,) = groups(report)
    assert set(values(group, codes.QUALITY_ASSESSMENT)) == expected
    assert values(group, codes.QUALITY_CONTROL_STANDARD) == (["130608"] if len(expected) == 2 else [])


def test_the_calibration_stands_in_the_report_and_with_the_algorithm(
    make: Any, headers: dict[str, Dataset], source: SourceStudy
) -> None:
    assessment, identity = make.assessment(headers), make.identity(headers)
    plain = quality_report(source, assessment, None, identity)
    assert any(text.startswith("Verdicts on series: cut points as shipped") for text in comments(plain))
    assert named(plain, ALGORITHM_PARAMETERS) == []
    stamp = calibration_of_t2w().stamp
    first = replace(assessment.series[0], calibration=stamp, novelty="a coil nobody has seen")
    gate = replace(assessment.gate, rule="t2w-limited", statement="Limited images are read. [PI-QUAL v2]")
    report = quality_report(
        source, replace(assessment, series=(first, *assessment.series[1:]), gate=gate), None, identity
    )
    for words in ("Skyra, room 2, by Dr Muster, 2026-03-02T10:00:00+00:00", stamp.sha256[:12]):
        assert any(words in text for text in comments(root_evaluations(report)))
        assert [words in str(item.TextValue) for item in named(report, ALGORITHM_PARAMETERS)] == [True]
    assert "Gate rule t2w-limited: Limited images are read. [PI-QUAL v2]" in comments(root_evaluations(report))
    assert "Unlike the series the score was made on: a coil nobody has seen" in comments(groups(report)[0])


def test_gate_shut_reads_as_not_attempted(make: Any, headers: dict[str, Dataset], source: SourceStudy) -> None:
    assessment = make.assessment(headers, gate_open=False)
    for detection in (None, SHUT):
        root = root_evaluations(quality_report(source, assessment, detection, make.identity(headers)))
        assert values(root, codes.PROCESSING_AND_FINDINGS_SUMMARY) == ["111225"]
        assert values(root, codes.SUMMARY_OF_DETECTIONS) == ["111225"]
        assert values(root, codes.IMAGING_STUDY_QUALITY) == ["RID14"]
        assert values(root, codes.QUALITY_FINDING) == ["130585"]
        assert "Gate: The diffusion series is ruined by motion." in comments(root)


def test_states_of_detection(make: Any, headers: dict[str, Dataset], source: SourceStudy) -> None:
    series = source.series(source.image_series_uids[0])
    found = make.detection(make.stack(headers[str(image.SOPInstanceUID)] for image in series), above=(True,))
    clear = replace(found, candidates=tuple(replace(c, above_operating_point=False) for c in found.candidates))
    for detection, summary, state in (
        (found, "111242", "111222"),
        (clear, "111241", "111222"),
        (FAILED, "111224", "111224"),
    ):
        root = root_evaluations(quality_report(source, make.assessment(headers), detection, make.identity(headers)))
        assert values(root, codes.PROCESSING_AND_FINDINGS_SUMMARY) == [summary]
        assert values(root, codes.SUMMARY_OF_DETECTIONS) == [state]


def test_every_reference_exists_and_worst_slices_are_shown(
    make: Any, headers: dict[str, Dataset], source: SourceStudy
) -> None:
    assessment = make.assessment(headers)
    report = read_back(quality_report(source, assessment, None, make.identity(headers)))
    referenced = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in items(report) if i.ValueType == "IMAGE"}
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    evidence = {
        (series.SeriesInstanceUID, instance.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert referenced <= {uid for _, uid in evidence} == set(headers)
    assert evidence == {(str(header.SeriesInstanceUID), uid) for uid, header in headers.items()}
    library = [i for i in items(report) if i.ConceptNameCodeSequence[0].CodeValue == "260753009"]
    assert len(library) == 5
    for group, series in zip(groups(report), assessment.series, strict=True):
        shown = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in items(group) if i.ValueType == "IMAGE"}
        by_score = sorted(series.slices, key=lambda slice_: slice_.score)
        worst = {slice_.sop_instance_uid for slice_ in by_score[:MAX_WORST_SLICES]}
        assert shown == worst | set(series.findings[0].sop_instance_uids)


def test_frames_of_a_multi_frame_image_are_named(make: Any, headers: dict[str, Dataset], source: SourceStudy) -> None:
    assessment = make.assessment(headers)
    one = assessment.series[0]
    uid = one.slices[0].sop_instance_uid
    frames = tuple(replace(one.slices[0], frame_number=number, score=0.1 * number) for number in range(1, 6))
    assessment = replace(assessment, series=(replace(one, slices=frames, findings=()),))
    (group,) = groups(quality_report(source, assessment, None, make.identity(headers)))
    (image,) = [i for i in items(group) if i.ValueType == "IMAGE"]
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == uid
    assert list(image.ReferencedSOPSequence[0].ReferencedFrameNumber) == [1, 2, 3]


def test_nothing_assessed_still_gives_a_report(make: Any, headers: dict[str, Dataset], source: SourceStudy) -> None:
    assessment = replace(make.assessment(headers), series=(), verdict=Verdict.NOT_ASSESSED, reason="No MR.")
    report = read_back(quality_report(source, assessment, None, make.identity(headers)))
    (group,) = groups(report)
    assert values(group, codes.SUMMARY_OF_ANALYSES) == ["111225"]
    assert values(root_evaluations(report), codes.IMAGING_STUDY_QUALITY) == []
    assert "No MR." in comments(root_evaluations(report))


def test_other_organs_are_not_called_prostate(make: Any) -> None:
    headers = make.headers(slices=2, Modality="CT", SOPClassUID=pydicom.uid.CTImageStorage)
    report = quality_report(SourceStudy(headers), make.assessment(headers), None, make.identity(headers))
    assert values(report, Code("121058", "DCM", "Procedure reported")) == ["25045-6"]
    assert "41216001" not in read_back(report).to_json()
    headers = make.headers(slices=2, BodyPartExamined="HEAD")
    report = quality_report(SourceStudy(headers), make.assessment(headers), None, make.identity(headers))
    assert values(report, Code("121058", "DCM", "Procedure reported")) == ["25056-3"]


def test_same_input_same_bytes_whenever_it_is_made(make: Any, headers: dict[str, Dataset], source: SourceStudy) -> None:
    identity = make.identity(headers)
    first = to_bytes(quality_report(source, make.assessment(headers), SHUT, identity))
    reversed_source = SourceStudy(dict(reversed(headers.items())))
    assert to_bytes(quality_report(reversed_source, make.assessment(headers), SHUT, identity)) == first
    report = pydicom.dcmread(BytesIO(first))
    stamps = {str(e.value) for e in report.iterall() if e.VR in {"DA", "TM", "DT"} and e.value}
    assert stamps == {"20260517", "123456", "20260517123456+0000"}


def test_private_scheme_is_declared_exactly_where_used(
    make: Any, headers: dict[str, Dataset], source: SourceStudy
) -> None:
    assessment = make.assessment(headers)
    plain = quality_report(source, assessment, None, make.identity(headers))
    assert "CodingSchemeIdentificationSequence" not in plain
    metric = Metric("edge_width", 1.4, "mm", "Edge width")
    private = replace(assessment, series=(replace(assessment.series[0], metrics=(metric,)),))
    report = read_back(quality_report(source, private, None, make.identity(headers)))
    (item,) = report.CodingSchemeIdentificationSequence
    assert (item.CodingSchemeDesignator, item.CodingSchemeResponsibleOrganization) == ("99PACSGATE", "pacsgate")


def test_document_header(make: Any, headers: dict[str, Dataset], source: SourceStudy) -> None:
    report = read_back(quality_report(source, make.assessment(headers), None, make.identity(headers)))
    assert (report.CompletionFlag, report.VerificationFlag, report.Modality) == ("COMPLETE", "UNVERIFIED", "SR")
    assert str(report.PatientName) == "Müller^Jörg"
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert report.SeriesNumber > 9000
    assert report.StudyInstanceUID == source.study_instance_uid
    assert codes.RESEARCH_USE in comments(report)
    assert report.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert values(report, Code("121005", "DCM", "Observer Type")) == ["121007"]  # a device, never a person


def test_infinite_numbers_are_left_out(make: Any, headers: dict[str, Dataset], source: SourceStudy) -> None:
    assessment = make.assessment(headers)
    broken = replace(
        assessment.series[0], metrics=(Metric("snr", float("inf"), "1", ""), Metric("cnr", float("nan"), "1", ""))
    )
    (group,) = groups(quality_report(source, replace(assessment, series=(broken,)), None, make.identity(headers)))
    assert [i.ConceptNameCodeSequence[0].CodeValue for i in items(group) if i.ValueType == "NUM"] == ["111029"]


def test_assessments_of_other_studies_and_unknown_slices_are_refused(
    make: Any, headers: dict[str, Dataset], source: SourceStudy
) -> None:
    assessment, identity = make.assessment(headers), make.identity(headers)
    with pytest.raises(SourceError, match="given for study"):
        quality_report(source, replace(assessment, study_instance_uid="1.2.3"), None, identity)
    with pytest.raises(SourceError, match="asked for study"):
        quality_report(source, assessment, None, ResultIdentity("1.2.3", 1, "0.1.0", identity.created_at))
    strange = replace(assessment.series[0].slices[0], sop_instance_uid="1.2.3.4", score=0.0)
    stranger = replace(assessment.series[0], slices=(strange,))
    with pytest.raises(SourceError, match=r"1\.2\.3\.4 is not in study"):
        quality_report(source, replace(assessment, series=(stranger,)), None, identity)


def test_probability_and_silent_headers_are_reported(
    make: Any, headers: dict[str, Dataset], source: SourceStudy
) -> None:
    assessment = make.assessment(headers)
    one = replace(assessment.series[0], probability_non_diagnostic=0.25, not_checkable=("TR: header is silent",))
    report = quality_report(source, replace(assessment, series=(one,)), None, make.identity(headers))
    (group,) = groups(report)
    (probability,) = named(group, codes.PROBABILITY_NON_DIAGNOSTIC)
    assert float(probability.MeasuredValueSequence[0].NumericValue) == 0.25
    assert "Not checkable: TR: header is silent" in comments(group)


def test_results_sent_back_to_us_are_no_obstacle(make: Any, headers: dict[str, Dataset]) -> None:
    """PACS return our own objects with the study; a report on such a study still refers to real instances only."""
    first = read_back(quality_report(SourceStudy(headers), make.assessment(headers), None, make.identity(headers)))
    returned = SourceStudy(headers | {str(first.SOPInstanceUID): first})
    second = quality_report(returned, make.assessment(headers), None, make.identity(headers, revision=2))
    assert first.SOPInstanceUID not in read_back(second).to_json()
    assert second.SOPInstanceUID != first.SOPInstanceUID
