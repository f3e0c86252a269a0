"""Experiments as product teams run them: stages, a plan that is fixed at the start, coverage, layers, pauses.

`plan` is a jsonb object of what was decided before the first look, `split` what routing sees (null: no
user takes part yet), `epochs` its times of equal weights, the oldest first. A running experiment of before is at the
stage `experiment`, with its metric as the primary one; all users take part, and each stays on the variant they had.
Nobody who started it asked for a rule, so it is ended by hand.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
ALTER TABLE experiments
    ADD COLUMN stage text NOT NULL DEFAULT 'experiment'
        CHECK (stage IN ('shadow', 'canary', 'experiment', 'promoted', 'rolled_back', 'stopped')),
    ADD COLUMN plan jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN unit text NOT NULL DEFAULT 'targeting_key' CHECK (unit IN ('targeting_key', 'episode', 'inference')),
    ADD COLUMN coverage double precision NOT NULL DEFAULT 1 CHECK (coverage > 0 AND coverage <= 1),
    ADD COLUMN canary_coverage double precision NOT NULL DEFAULT 0.05
        CHECK (canary_coverage > 0 AND canary_coverage <= 1),
    ADD COLUMN layer text COLLATE "C",
    ADD COLUMN hypothesis text NOT NULL DEFAULT '',
    ADD COLUMN owner text NOT NULL DEFAULT '',
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    ADD COLUMN split jsonb,
    ADD COLUMN epochs jsonb NOT NULL DEFAULT '[]'
""",
    """
UPDATE experiments SET stage = CASE status WHEN 'running' THEN 'experiment' ELSE 'stopped' END,
    plan = jsonb_strip_nulls(jsonb_build_object('primary', metric, 'roll_back', 'hand'))
""",
    """
UPDATE experiments e SET epochs = jsonb_build_array(jsonb_build_object(
    'revision', coalesce((SELECT min(revision) FROM alias_revisions r
                          WHERE r.tenant = e.tenant AND r.alias = e.alias AND r.experiment = e.id), 1),
    'since', started_at,
    'weights', (SELECT jsonb_agg(v -> 'weight' ORDER BY n) FROM jsonb_array_elements(variants) WITH ORDINALITY t (v, n))
))
""",
    """
UPDATE experiments e SET split = jsonb_build_object(
    'unit', 'targeting_key', 'salt', a.salt, 'stretches', '[[0, 1]]'::jsonb, 'overrides', '{}'::jsonb,
    'buckets', (
        SELECT jsonb_agg(jsonb_build_array(reached / total, name) ORDER BY n) FROM (
            SELECT v ->> 'name' AS name, n, (v ->> 'weight')::float8 AS weight,
                   sum((v ->> 'weight')::float8) OVER (ORDER BY n) AS reached,
                   sum((v ->> 'weight')::float8) OVER () AS total
            FROM jsonb_array_elements(e.variants) WITH ORDINALITY t (v, n)
        ) AS arms WHERE weight > 0
    )
) FROM aliases a WHERE a.experiment = e.id AND e.stage = 'experiment'
""",
    "DROP INDEX one_running_experiment",
    "ALTER TABLE experiments DROP COLUMN status, DROP COLUMN metric",
    "ALTER TABLE experiments RENAME COLUMN stopped_at TO ended_at",
    "ALTER TABLE experiments RENAME COLUMN stop_reason TO end_reason",
    "CREATE UNIQUE INDEX one_running_experiment ON experiments (tenant, alias) "
    "WHERE stage IN ('shadow', 'canary', 'experiment')",
    "ALTER TABLE metrics DROP CONSTRAINT metrics_kind_check, ADD CONSTRAINT metrics_kind_check "
    "CHECK (kind IN ('boolean', 'float', 'count', 'ratio', 'comment', 'demonstration', 'preference')), "
    "ADD COLUMN unit text NOT NULL DEFAULT '', "
    'ADD COLUMN numerator text COLLATE "C", ADD COLUMN denominator text COLLATE "C"',
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a database goes forward only: restore a backup to go back")
