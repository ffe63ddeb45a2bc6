"""Deliveries of received instances, per-object attempts, paused destinations, variants of results.

What was routed before this version stays as it is: no study already in the index is forwarded because of it.

Revision ID: 0004
Revises: 0001
"""
from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision = '0004'
down_revision = "0003"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table('destination_state',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('turn', sa.Integer(), nullable=False),
    sa.Column('paused_at', _time, nullable=True),
    sa.Column('paused_reason', sa.Text(), nullable=False),
    sa.Column('sending_since', _time, nullable=True),
    sa.Column('last_success_at', _time, nullable=True),
    sa.Column('last_failure_at', _time, nullable=True),
    sa.Column('last_failure', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_destination_state')),
    sa.UniqueConstraint('name', name=op.f('uq_destination_state_name'))
    )
    op.execute("INSERT INTO destination_state (name, turn, paused_reason, last_failure) SELECT DISTINCT destination, 0, '', '' FROM delivery")
    op.add_column('series', sa.Column('routed_until', _time, nullable=True))
    op.add_column('study_revision', sa.Column('routed_at', _time, nullable=True))
    op.execute("UPDATE series SET routed_until = last_received_at")
    op.execute("UPDATE study_revision SET routed_at = coalesce(finished_at, opened_at) WHERE state IN ('finished', 'failed')")
    op.create_index('ix_study_revision_not_routed', 'study_revision', ['state'], unique=False, sqlite_where=sa.text('routed_at IS NULL'), postgresql_where=sa.text('routed_at IS NULL'))
    op.add_column('result_object', sa.Column('variant_of', sa.String(length=64), nullable=False, server_default=''))
    _add_to_delivery()


def _add_to_delivery() -> None:
    op.drop_index(op.f('ix_delivery_next_attempt_at'), table_name='delivery')
    op.drop_index('ix_delivery_state', table_name='delivery')
    for column in (
        sa.Column('revision_id', sa.Integer(), nullable=True),
        sa.Column('instance_id', sa.Integer(), nullable=True),
        sa.Column('object_digest', sa.String(length=64), nullable=True),
        sa.Column('priority', sa.SmallInteger(), nullable=False, server_default='2'),
        sa.Column('rules', sa.Text(), nullable=False, server_default=''),
        sa.Column('sent_as', sa.Text(), nullable=False, server_default=''),
        sa.Column('first_attempt_at', _time, nullable=True),
        sa.Column('last_attempt_at', _time, nullable=True),
    ):
        op.add_column('delivery', column)
    op.execute("""
        UPDATE delivery SET
            revision_id = (SELECT revision_id FROM result_object WHERE result_object.id = delivery.result_id),
            object_digest = (SELECT object_digest FROM result_object WHERE result_object.id = delivery.result_id)
    """)
    with op.batch_alter_table('delivery') as batch:
        batch.alter_column('result_id', existing_type=sa.Integer(), nullable=True)
        batch.alter_column('revision_id', existing_type=sa.Integer(), nullable=False)
        batch.alter_column('object_digest', existing_type=sa.String(length=64), nullable=False)
        for name, column_type in (('priority', sa.SmallInteger()), ('rules', sa.Text()), ('sent_as', sa.Text())):
            batch.alter_column(name, existing_type=column_type, existing_nullable=False, server_default=None)
        batch.create_foreign_key(op.f('fk_delivery_revision_id'), 'study_revision', ['revision_id'], ['id'])
        batch.create_foreign_key(op.f('fk_delivery_instance_id'), 'instance', ['instance_id'], ['id'])
        batch.create_unique_constraint(op.f('uq_delivery_instance_id'), ['instance_id', 'destination'])
        batch.create_check_constraint(op.f('ck_delivery_one_object'), '(result_id IS NULL) <> (instance_id IS NULL)')
    op.create_index('ix_delivery_destination_state', 'delivery', ['destination', 'state'], unique=False)
    op.create_index('ix_delivery_revision', 'delivery', ['revision_id'], unique=False)
    op.create_index('ix_delivery_due', 'delivery', ['destination', 'next_attempt_at'], unique=False, sqlite_where=sa.text("state = 'pending'"), postgresql_where=sa.text("state = 'pending'"))
    op.create_index('ix_delivery_pending', 'delivery', ['destination', 'priority', 'id', 'next_attempt_at'], unique=False, sqlite_where=sa.text("state = 'pending'"), postgresql_where=sa.text("state = 'pending'"))


def downgrade() -> None:
    op.drop_index('ix_delivery_due', table_name='delivery', sqlite_where=sa.text("state = 'pending'"), postgresql_where=sa.text("state = 'pending'"))
    op.drop_index('ix_delivery_pending', table_name='delivery', sqlite_where=sa.text("state = 'pending'"), postgresql_where=sa.text("state = 'pending'"))
    op.drop_index('ix_delivery_revision', table_name='delivery')
    op.drop_index('ix_delivery_destination_state', table_name='delivery')
    op.execute("DELETE FROM delivery WHERE result_id IS NULL")
    with op.batch_alter_table('delivery') as batch:
        batch.drop_constraint(op.f('ck_delivery_one_object'), type_='check')
        batch.drop_constraint(op.f('uq_delivery_instance_id'), type_='unique')
        batch.drop_constraint(op.f('fk_delivery_instance_id'), type_='foreignkey')
        batch.drop_constraint(op.f('fk_delivery_revision_id'), type_='foreignkey')
        for name in ('revision_id', 'instance_id', 'object_digest', 'priority', 'rules', 'sent_as', 'first_attempt_at', 'last_attempt_at'):
            batch.drop_column(name)
        batch.alter_column('result_id', existing_type=sa.Integer(), nullable=False)
    op.create_index('ix_delivery_state', 'delivery', ['state'], unique=False)
    op.create_index(op.f('ix_delivery_next_attempt_at'), 'delivery', ['next_attempt_at'], unique=False)
    op.execute("DELETE FROM result_object WHERE variant_of <> ''")
    op.drop_column('result_object', 'variant_of')
    op.drop_index('ix_study_revision_not_routed', table_name='study_revision', sqlite_where=sa.text('routed_at IS NULL'), postgresql_where=sa.text('routed_at IS NULL'))
    op.drop_column('study_revision', 'routed_at')
    op.drop_column('series', 'routed_until')
    op.drop_table('destination_state')
