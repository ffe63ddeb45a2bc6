"""Modality Performed Procedure Step as provider (PS3.4 F): N-CREATE when a modality begins, N-SET when it has ended.

Success is answered after the rows are committed. A step that has ended is final (PS3.4 F.7.2.2.2).
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.events import Event
from sqlalchemy.exc import SQLAlchemyError

from node.dimse.requests import (
    MAXIMUM_REFERENCES,
    UNREADABLE_ELEMENT,
    InvalidRequest,
    checked_uid,
    items,
    referenced,
    text_of,
    uid_of,
)
from node.dimse.storage_scp import error_comment
from storage.database import Database
from storage.models import StepStatus, utc_now
from storage.procedure_steps import (
    MAXIMUM_STUDIES,
    DuplicateStep,
    NamedInstance,
    NewStep,
    StepHasEnded,
    StepUpdate,
    UnknownStep,
    create_step,
    update_step,
)

_log = structlog.get_logger(__name__)


class StepResponse(IntEnum):
    """Statuses we answer (PS3.7 C, PS3.4 F.7.2)."""

    SUCCESS = 0x0000
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    INVALID_SOP_INSTANCE = 0x0117
    MISSING_ATTRIBUTE = 0x0120
    RESOURCE_LIMITATION = 0x0213


MAY_NO_LONGER_BE_UPDATED: Final = 0xA710
"""Error ID of an N-SET to a step that has ended (PS3.4 table F.7.2-2)."""
_REFERENCES: Final = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")

Answer = tuple[Dataset, Dataset]


class ProcedureStepScp:
    """The N-CREATE and N-SET handlers of one receiver."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def on_n_create(self, event: Event) -> Answer:
        """Handle evt.EVT_N_CREATE: a modality begins a step."""
        return _answered(event, "N-CREATE", lambda: self._create(event))

    def on_n_set(self, event: Event) -> Answer:
        """Handle evt.EVT_N_SET: a modality tells how far it is, or that it has ended."""
        return _answered(event, "N-SET", lambda: self._set(event))

    def _create(self, event: Event) -> Dataset:
        attributes, requestor = event.attribute_list, event.assoc.requestor
        given = str(event.request.AffectedSOPInstanceUID or "")
        uid = checked_uid(given, "SOP Instance UID", StepResponse.INVALID_SOP_INSTANCE) if given else generate_uid()
        if _status(attributes) is not StepStatus.IN_PROGRESS:
            reason = "PerformedProcedureStepStatus must be IN PROGRESS when a step is created"
            raise InvalidRequest(StepResponse.INVALID_ATTRIBUTE_VALUE, reason)
        scheduled = items(attributes, "ScheduledStepAttributesSequence")
        if not 0 < len(scheduled) <= MAXIMUM_STUDIES:
            reason = f"ScheduledStepAttributesSequence must have 1 to {MAXIMUM_STUDIES} items"
            raise InvalidRequest(StepResponse.MISSING_ATTRIBUTE, reason)
        step = NewStep(
            sop_instance_uid=uid,
            study_instance_uids=[uid_of(item, "StudyInstanceUID") for item in scheduled],
            calling_ae_title=requestor.ae_title.strip(),
            peer_address=requestor.address_info.address,
            performed_procedure_step_id=text_of(attributes, "PerformedProcedureStepID"),
            performed_station_ae_title=text_of(attributes, "PerformedStationAETitle"),
            modality=text_of(attributes, "Modality"),
        )
        with self._database.session() as session:
            create_step(session, step, utc_now())
        _log.info(
            "procedure-step-created",
            sop_instance_uid=uid,
            study_instance_uids=list(step.study_instance_uids),
            calling_ae_title=step.calling_ae_title,
        )
        created = Dataset()
        if not given:
            created.AffectedSOPInstanceUID = uid
        return created

    def _set(self, event: Event) -> Dataset:
        attributes = event.modification_list
        uid = checked_uid(str(event.request.RequestedSOPInstanceUID or ""), "SOP Instance UID")
        update = StepUpdate(
            status=_status(attributes),
            instances=_performed_instances(attributes),
            discontinuation_reason=_discontinuation_reason(attributes),
        )
        with self._database.session() as session:
            status = update_step(session, uid, update, utc_now())
        named = None if update.instances is None else len(update.instances)
        _log.info("procedure-step-updated", sop_instance_uid=uid, status=status, instances=named)
        return Dataset()


def _status(attributes: Dataset) -> StepStatus | None:
    """Performed Procedure Step Status; None where it is absent. Raises InvalidRequest for an unknown one."""
    text = text_of(attributes, "PerformedProcedureStepStatus")
    if not text:
        return None
    try:
        return StepStatus(text)
    except ValueError as error:
        reason = "PerformedProcedureStepStatus is none of IN PROGRESS, COMPLETED, DISCONTINUED"
        raise InvalidRequest(StepResponse.INVALID_ATTRIBUTE_VALUE, reason) from error


def _performed_instances(attributes: Dataset) -> list[NamedInstance] | None:
    """The instances named in the Performed Series Sequence, None where there is no such sequence."""
    if "PerformedSeriesSequence" not in attributes:
        return None
    found: list[NamedInstance] = []
    for series in items(attributes, "PerformedSeriesSequence"):
        series_uid = uid_of(series, "SeriesInstanceUID")
        for sequence in _REFERENCES:
            for sop_class_uid, sop_instance_uid in referenced(series, sequence):
                found.append(NamedInstance(series_uid, sop_class_uid, sop_instance_uid))
                if len(found) > MAXIMUM_REFERENCES:
                    reason = f"more than {MAXIMUM_REFERENCES} instances are named"
                    raise InvalidRequest(StepResponse.RESOURCE_LIMITATION, reason)
    return found


def _discontinuation_reason(attributes: Dataset) -> str:
    codes = items(attributes, "PerformedProcedureStepDiscontinuationReasonCodeSequence")
    return text_of(codes[0], "CodeMeaning") if codes else ""


def _answered(event: Event, service: str, serve: Callable[[], Dataset]) -> Answer:
    """Serve a request; what goes wrong becomes its status."""
    try:
        return _response(StepResponse.SUCCESS, ""), serve()
    except InvalidRequest as error:
        response = _response(error.status, str(error))
    except DuplicateStep as error:
        response = _response(StepResponse.DUPLICATE_SOP_INSTANCE, str(error))
    except UnknownStep as error:
        response = _response(StepResponse.NO_SUCH_SOP_INSTANCE, str(error))
    except StepHasEnded:
        response = _response(
            StepResponse.PROCESSING_FAILURE, "Performed Procedure Step Object may no longer be updated"
        )
        response.ErrorID = MAY_NO_LONGER_BE_UPDATED
    except SQLAlchemyError as error:
        response = _response(StepResponse.RESOURCE_LIMITATION, f"the index cannot be written ({type(error).__name__})")
    except UNREADABLE_ELEMENT as error:
        response = _response(StepResponse.PROCESSING_FAILURE, f"data set cannot be decoded ({type(error).__name__})")
    _log.warning(
        "procedure-step-refused",
        service=service,
        status=f"0x{response.Status:04X}",
        reason=response.ErrorComment,
        calling_ae_title=event.assoc.requestor.ae_title,
    )
    return response, Dataset()


def _response(status: int, reason: str) -> Dataset:
    response = Dataset()
    response.Status = int(status)
    if reason:
        response.ErrorComment = error_comment(reason)
    return response
