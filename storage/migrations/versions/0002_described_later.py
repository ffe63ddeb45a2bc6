"""Headers are described after the instance is acknowledged

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("instance") as table:
        table.alter_column("header", existing_type=_JSON, nullable=True)
    op.create_index(
        "ix_instance_undescribed",
        "instance",
        ["id"],
        sqlite_where=sa.text("header IS NULL"),
        postgresql_where=sa.text("header IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_instance_undescribed", table_name="instance")
    # The older schema has no word for "not described yet"; an empty header is the nearest it can say.
    op.execute("UPDATE instance SET header = '{}' WHERE header IS NULL")
    with op.batch_alter_table("instance") as table:
        table.alter_column("header", existing_type=_JSON, nullable=False)
