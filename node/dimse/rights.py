"""Which right opens which presentation contexts: a peer is offered only what it may use (PS3.7 D.3.2)."""

from collections.abc import Iterable
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pynetdicom import sop_class
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from node.settings import Right

RIGHT_OF_SOP_CLASS: Final = MappingProxyType(
    {
        str(getattr(sop_class, keyword)): right
        for right, keywords in {
            Right.ECHO: ("Verification",),
            Right.FIND: (
                "PatientRootQueryRetrieveInformationModelFind",
                "StudyRootQueryRetrieveInformationModelFind",
                "PatientStudyOnlyQueryRetrieveInformationModelFind",
            ),
            Right.MOVE: (
                "PatientRootQueryRetrieveInformationModelMove",
                "StudyRootQueryRetrieveInformationModelMove",
                "PatientStudyOnlyQueryRetrieveInformationModelMove",
                "CompositeInstanceRootRetrieveMove",
            ),
            Right.GET: (
                "PatientRootQueryRetrieveInformationModelGet",
                "StudyRootQueryRetrieveInformationModelGet",
                "PatientStudyOnlyQueryRetrieveInformationModelGet",
                "CompositeInstanceRootRetrieveGet",
                "CompositeInstanceRetrieveWithoutBulkDataGet",
            ),
            Right.WORKLIST: ("ModalityWorklistInformationFind",),
            Right.PROCEDURE_STEP: (
                "ModalityPerformedProcedureStep",
                "ModalityPerformedProcedureStepRetrieve",
                "ModalityPerformedProcedureStepNotification",
            ),
            Right.STORAGE_COMMITMENT: ("StorageCommitmentPushModel",),
        }.items()
        for keyword in keywords
    }
)
"""The right that a SOP class needs; every storage SOP class needs `Right.STORE`, and what is not listed nobody has."""


def right_of(context: PresentationContext) -> Right | None:
    """Return the right that a presentation context needs; None for a service that no right opens."""
    return _right_of_sop_class(str(context.abstract_syntax))


@lru_cache(maxsize=1024)
def _right_of_sop_class(uid: str) -> Right | None:
    """Looked up once: pynetdicom searches all its lists for each of the 170 classes of each association."""
    if uid_to_service_class(uid) is StorageServiceClass:
        return Right.STORE
    return RIGHT_OF_SOP_CLASS.get(uid)


def allowed_contexts(
    contexts: Iterable[PresentationContext], rights: frozenset[Right], received_by_get: frozenset[str] = frozenset()
) -> list[PresentationContext]:
    """Return the supported ``contexts`` that ``rights`` open.

    ``received_by_get`` are the storage SOP classes that the peer wants as SCP only (PS3.7 D.3.3.4), for C-GET: they
    need no right to store here.
    """
    return [
        context
        for context in contexts
        if right_of(context) in rights or (Right.GET in rights and str(context.abstract_syntax) in received_by_get)
    ]
