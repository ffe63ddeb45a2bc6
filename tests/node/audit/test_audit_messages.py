"""Audit messages have the structure of PS3.15 A.5.1, whatever peers put into them, and the standard's codes."""

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr.codedict import codes as dicom_codes

from node.audit import Action, AuditTrail, RemoteNode, Transfer, codes
from node.audit.codes import Code, Outcome
from node.audit.message import MAXIMUM_TEXT_LENGTH, ActiveParticipant, AuditMessage, AuditSource, ParticipantObject
from tests.fixtures.audit_messages import event_of, parse
from tests.fixtures.audit_sinks import trail_into

SYSTEM_OBJECT = codes.ObjectType.SYSTEM_OBJECT
ANYTHING = st.text(st.characters(codec=None), max_size=40)
NODE = RemoteNode("10.0.0.9", "SKYRA")
TRANSFER = Transfer("1.2.3", Action.CREATE, {"1.2.840.10008.5.1.4.1.1.4": 5}, "MRN-7")
ALL = [value for value in vars(codes).values() if isinstance(value, Code) and value.scheme == "DCM"]


@pytest.mark.parametrize("code", ALL, ids=lambda code: code.meaning)
def test_codes_are_those_of_the_standard(code: Code) -> None:
    known = {
        (item.value, item.meaning)
        for group in (dicom_codes.CID400, dicom_codes.CID401, dicom_codes.CID402, dicom_codes.CID404)
        for item in (getattr(group, name) for name in group.dir())
    }
    assert (code.value, code.meaning) in known


@given(ANYTHING, ANYTHING, ANYTHING, st.binary(max_size=50), st.sampled_from(Action), st.sampled_from(Outcome))
def test_whatever_peers_say_the_message_is_well_formed_and_on_one_line(
    name: str, text: str, description: str, query: bytes, action: Action, outcome: Outcome
) -> None:
    message = AuditMessage(
        codes.QUERY,
        action,
        outcome,
        AuditSource("PACSGATE", name),
        (ActiveParticipant(name or "x", True, (codes.SOURCE,), name, name, name),),
        (codes.LOGIN,),
        (
            ParticipantObject(name or "x", codes.NODE_ID, SYSTEM_OBJECT, None, text, details={"a": text}),
            ParticipantObject("1.2", codes.SOP_CLASS_UID, SYSTEM_OBJECT, query=query),
        ),
        description,
    )
    assert b"\n" not in message.xml
    root = parse(message.xml)
    sent = root.findtext(".//ParticipantObjectQuery") or ""
    assert base64.b64decode(sent) == query


def test_a_flood_of_text_is_cut() -> None:
    participant = ActiveParticipant("x" * 10**6, True)
    message = AuditMessage(
        codes.SECURITY_ALERT, Action.EXECUTE, Outcome.SUCCESS, AuditSource("A"), (participant,), description="y" * 10**6
    )
    assert len(message.xml) < 2 * MAXIMUM_TEXT_LENGTH + 1000
    parse(message.xml)


Said = tuple[str, tuple[str, ...], str, str]


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        (lambda t: t.application_started(), ("Application Activity", ("Application Start",), "E", "0")),
        (lambda t: t.application_stopped("OSError"), ("Application Activity", ("Application Stop",), "E", "8")),
        (lambda t: t.instances_received(NODE, [TRANSFER]), ("DICOM Instances Transferred", (), "C", "0")),
        (lambda t: t.sending_begins(NODE, TRANSFER), ("Begin Transferring DICOM Instances", (), "E", "0")),
        (lambda t: t.instances_sent(NODE, TRANSFER), ("DICOM Instances Transferred", (), "R", "0")),
        (lambda t: t.instances_sent(NODE, TRANSFER, "refused"), ("DICOM Instances Transferred", (), "R", "4")),
        (lambda t: t.query(NODE, "1.2.3", b"key", "1.2.840.10008.1.2"), ("Query", (), "E", "0")),
        (lambda t: t.user_authenticated(NODE, "bob"), ("User Authentication", ("Login",), "E", "0")),
        (lambda t: t.user_authenticated(NODE, "eve", "wrong"), ("User Authentication", ("Login",), "E", "4")),
        (lambda t: t.node_refused(NODE, "why"), ("Security Alert", ("Node Authentication",), "E", "4")),
        (lambda t: t.restricted_use(NODE, "why"), ("Security Alert", ("Use of Restricted Function",), "E", "4")),
        (lambda t: t.settings_reloaded("rules"), ("Security Alert", ("Software Configuration",), "E", "0")),
        (lambda t: t.settings_reloaded("rules", "bad"), ("Security Alert", ("Software Configuration",), "E", "4")),
    ],
)
def test_each_event_is_said_in_the_standards_words(say: Callable[[AuditTrail], None], expected: Said) -> None:
    with trail_into() as sink:
        assert sink.trail is not None
        say(sink.trail)
        (event,) = sink.events()
    assert (event.event, event.types, event.action, event.outcome) == expected


def test_a_transfer_names_both_sides_the_study_and_the_counts() -> None:
    with trail_into(include_patient_id=True) as sink:
        assert sink.trail is not None
        sink.trail.instances_sent(RemoteNode("pacs.hospital.test", "PACS"), TRANSFER)
        (xml,) = sink.xml()
    root = parse(xml)
    source, destination = root.findall("ActiveParticipant")
    roles = [p.findall("RoleIDCode")[0].attrib["csd-code"] for p in (source, destination)]
    assert roles == ["110153", "110152"]
    assert destination.attrib["NetworkAccessPointTypeCode"] == "1"  # a machine name, not an address
    assert event_of(xml).objects == {"1.2.3": {"1.2.840.10008.5.1.4.1.1.4": 5}, "MRN-7": {}}


def test_a_query_keeps_its_keys_only_where_patients_may_be_named() -> None:
    for include, kept in ((False, b""), (True, b"PatientName=Doe")):
        with trail_into(include_patient_id=include) as sink:
            assert sink.trail is not None
            sink.trail.query(NODE, "1.2.3", b"PatientName=Doe", "1.2.840.10008.1.2")
            (xml,) = sink.xml()
        assert base64.b64decode(parse(xml).findtext(".//ParticipantObjectQuery") or "") == kept
