"""What evaluations leave behind: the newest one of each experiment, its looks over time, and what must still be told.

`evaluations` is also the memory of what was told: an experiment whose stage or word differs from its row's is news.
Experiments that had ended before this table was there are no news any more. `outbox` holds messages until their
receiver has taken them, or for three days.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
CREATE TABLE evaluations (
    experiment  text PRIMARY KEY REFERENCES experiments,
    at          timestamptz NOT NULL,
    stage       text,                          -- as it was told last; null: it was not
    word        text,                          -- as it was told last; null: nothing was judged yet
    verdict     jsonb,                         -- the newest, kept or not
    looked_at   timestamptz,                   -- of the newest look that was kept
    weighed     bigint NOT NULL DEFAULT 0      -- units when the weights were drawn last
)""",
    """
CREATE TABLE looks (
    experiment  text NOT NULL REFERENCES experiments,
    at          timestamptz NOT NULL,
    word        text NOT NULL,
    verdict     jsonb NOT NULL,
    PRIMARY KEY (experiment, at)
)""",
    """
CREATE TABLE outbox (
    id          text PRIMARY KEY,              -- the receiver's to tell repetitions by
    body        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    attempts    integer NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL DEFAULT now()
)""",
    "CREATE INDEX outbox_by_due ON outbox (due_at)",
    "INSERT INTO evaluations (experiment, at, stage) "
    "SELECT id, ended_at, stage FROM experiments WHERE ended_at IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a database goes forward only: restore a backup to go back")
