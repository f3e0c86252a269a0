"""Shadows of aliases, and the requests that were mirrored to them.

A mirrored request is a row of `inferences` like any other, with the id of the one it repeats. The index is for the
comparison of the two (`store/shadows.py`): it holds mirrored requests only, so it costs the others nothing.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE aliases ADD COLUMN shadow jsonb",  # {"ref", "share"}; a null ref is the base model
    "ALTER TABLE alias_revisions ADD COLUMN shadow jsonb",
    'ALTER TABLE inferences ADD COLUMN shadow_of text COLLATE "C"',
    "CREATE INDEX inferences_of_shadow ON inferences (tenant, alias, created_at) WHERE shadow_of IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a database goes forward only: restore a backup to go back")
