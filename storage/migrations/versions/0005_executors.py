"""executors: the heartbeats of the processes of all hosts

Revision ID: 0005
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = '0005'
down_revision: str | None = '0004'
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.create_table(
        'executor',
        sa.Column('slot', sa.Text(), nullable=False),
        sa.Column('run_id', sa.String(length=32), nullable=False),
        sa.Column('host', sa.Text(), nullable=False),
        sa.Column('kind', sa.String(length=16), nullable=False),
        sa.Column('pid', sa.BigInteger(), nullable=False),
        sa.Column('queues', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
        sa.Column('pipeline_version', sa.Text(), nullable=False),
        sa.Column('state', sa.String(length=16), nullable=False),
        sa.Column('jobs', sa.Integer(), nullable=False),
        sa.Column('started_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('seen_at', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('slot', name=op.f('pk_executor')),
    )


def downgrade() -> None:
    op.drop_table('executor')
