"""What the loop of learning needs: preferences, the gate's verdicts, lineage, and erasures that last.

`lineage` says which row went into which version, in the order of the training rows; it holds ids and digests only.
`erasures` remembers whose content was erased and when, so that what is written later of an earlier request is erased
too. The indexes on traffic are for finding a user's rows: a unit is a hash that no two tenants share, and the words of
a preference are the id of the answer that lost.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE metrics DROP CONSTRAINT metrics_kind_check, ADD CONSTRAINT metrics_kind_check "
    "CHECK (kind IN ('boolean', 'float', 'comment', 'demonstration', 'preference'))",
    "ALTER TABLE adapters ADD COLUMN verdict text CHECK (verdict IN ('accepted', 'refused', 'undecided')), "
    "ADD COLUMN verdict_reason text, "
    # tenant/name@version whose weights it was trained on from: whatever went into that one is in this one, too.
    'ADD COLUMN continues text COLLATE "C"',
    """
CREATE TABLE lineage (
    tenant        text COLLATE "C" NOT NULL,
    name          text COLLATE "C" NOT NULL,
    version       integer NOT NULL,
    seq           integer NOT NULL,            -- the order of the training rows, from 0
    row           text NOT NULL,               -- sha256:… of the row
    inference_id  text COLLATE "C",
    unit          text COLLATE "C",
    feedback_ids  text[] COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, name, version, seq),
    FOREIGN KEY (tenant, name, version) REFERENCES adapters
)""",
    "CREATE INDEX lineage_of_unit ON lineage (tenant, unit) WHERE unit IS NOT NULL",
    "CREATE INDEX lineage_of_inference ON lineage (tenant, inference_id) WHERE inference_id IS NOT NULL",
    "CREATE INDEX lineage_of_feedback ON lineage USING gin (feedback_ids)",
    """
CREATE TABLE erasures (
    tenant     text COLLATE "C" NOT NULL REFERENCES tenants,
    unit       text COLLATE "C" NOT NULL,
    erased_at  timestamptz NOT NULL,           -- of what was asked until then nothing is kept
    PRIMARY KEY (tenant, unit)
)""",
    "DROP INDEX inferences_for_export",  # by alias first: it could not give a tenant's requests in their order
    "CREATE INDEX inferences_for_export ON inferences (tenant, created_at, id)",
    "DROP INDEX feedback_for_export",  # exports find feedback by what it is about
    "CREATE INDEX inferences_of_unit ON inferences (unit)",
    "CREATE INDEX feedback_of_loser ON feedback (words) WHERE kind = 'preference'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a database goes forward only: restore a backup to go back")
