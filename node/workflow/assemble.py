"""Step assemble: check that the study's bytes are what was received, sort them into volumes, give each its role."""

from concurrent.futures import ThreadPoolExecutor

from node import telemetry
from node.workflow.context import NodeContext
from node.workflow.version import PIPELINE_VERSION
from storage.journal import record
from storage.models import utc_now
from storage.revisions import find_revision, stored_instances

OBJECTS_AT_ONCE = 8
"""A shared object store answers after tens of milliseconds each; eight at a time hide them."""


def assemble_step(context: NodeContext, study_instance_uid: str, number: int) -> None:
    """Verify every object's digest (IntegrityError names a damaged one) and journal the roles and choices."""
    with context.database.read() as session:
        revision = find_revision(session, study_instance_uid, number)
        digests = [instance.object_digest for instance in stored_instances(session, revision)]
        if revision.closed_at is not None:
            telemetry.study_dequeued((utc_now() - revision.closed_at).total_seconds())
    with ThreadPoolExecutor(OBJECTS_AT_ONCE) as pool:
        for _ in pool.map(context.objects.verify, digests):
            pass
    assembly = context.study(study_instance_uid, number).assembly
    with context.database.session() as session:
        find_revision(session, study_instance_uid, number).pipeline_version = PIPELINE_VERSION
        record(
            session,
            "assembled",
            f"{len(assembly.stacks)} volumes, {len(assembly.unreadable)} instances in no volume",
            study_instance_uid,
            revision=number,
            roles=[{"volume": s.stack.volume_id, "role": s.role, "reasons": list(s.reasons)} for s in assembly.stacks],
            choices=[{"purpose": c.purpose, "volume": c.volume_id, "reason": c.reason} for c in assembly.choices],
            unreadable=dict(assembly.unreadable),
        )
