"""Limits of tenants and keys, a tenant's weight, and the tokens used of budgets.

`limits` is a jsonb object of the limits that are set, each a whole number; null where none is. `usage` has one row for
each account and UTC day, so a month is the sum of at most 31 rows and nothing has to be reset at its end.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE tenants ADD COLUMN limits jsonb, "
    "ADD COLUMN weight double precision NOT NULL DEFAULT 1 CHECK (weight > 0 AND weight < 'Infinity')",
    "ALTER TABLE api_keys ADD COLUMN limits jsonb",
    """
CREATE TABLE usage (                           -- written each second: half-full pages keep updates heap-only
    account  text COLLATE "C" NOT NULL,        -- tenant:acme, key:key-0123…
    day      date NOT NULL,                    -- UTC
    tokens   bigint NOT NULL,
    PRIMARY KEY (account, day)
) WITH (fillfactor = 50)""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a database goes forward only: restore a backup to go back")
