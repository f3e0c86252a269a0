"""An index for people who look through a tenant's feedback, the newest first (store/browsing.py)."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATEMENTS = ("CREATE INDEX feedback_by_arrival ON feedback (tenant, seq)",)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a database goes forward only: restore a backup to go back")
