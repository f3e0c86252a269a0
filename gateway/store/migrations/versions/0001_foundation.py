"""The whole schema of the closed loop.

Written as the SQL it is, since PostgreSQL is the only dialect. Three kinds of table live here: the control plane's few
rows, which every worker reads as one Snapshot; the traffic, `inferences` and `feedback`, which grows by millions of
rows and therefore has narrow rows, only the indexes that a named query needs, and no foreign keys; and `workers`,
which is worth nothing after a crash and is unlogged.

Ids of inferences are text of 44 lower-case hex digits, compared byte by byte (collation "C"). They begin with a
UUIDv7's milliseconds, so the primary key grows at its right edge. What a client wrote is kept as `json`, not `jsonb`:
it may hold `\\u0000` or half a surrogate pair, which `jsonb` refuses, and one such prompt would take its whole batch
down.
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CONTROL = """
CREATE TABLE control_state (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version     bigint NOT NULL DEFAULT 1,     -- of the snapshot; +1 with each committed change
    secret      bytea NOT NULL,                -- 32 bytes: keys inference ids, units and cache salts
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE tenants (
    name           text COLLATE "C" PRIMARY KEY,
    store_content  boolean NOT NULL,
    allow_pinning  boolean NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE api_keys (
    id          text PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL REFERENCES tenants,
    digest      bytea NOT NULL UNIQUE,         -- SHA-256 of the key; the key itself is nowhere
    prefix      text NOT NULL,                 -- what a person may recognise it by
    scopes      text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX api_keys_of_tenant ON api_keys (tenant, created_at);
CREATE TABLE metrics (
    tenant       text COLLATE "C" NOT NULL REFERENCES tenants,
    name         text COLLATE "C" NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('boolean', 'float', 'comment', 'demonstration')),
    optimize     text NOT NULL CHECK (optimize IN ('max', 'min')),
    description  text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, name)
);
CREATE TABLE adapters (
    tenant      text COLLATE "C" NOT NULL REFERENCES tenants,
    name        text COLLATE "C" NOT NULL,
    version     integer NOT NULL CHECK (version > 0),
    digest      text NOT NULL,                 -- sha256:…, the store's content address
    rank        integer NOT NULL,
    base_model  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    retired_at  timestamptz,
    PRIMARY KEY (tenant, name, version)
);
"""

# Variants are a jsonb list of {"name", "weight", "ref"}; a null ref is the base model.
POINTERS = """
CREATE TABLE aliases (
    tenant      text COLLATE "C" NOT NULL REFERENCES tenants,
    name        text COLLATE "C" NOT NULL,
    revision    integer NOT NULL,
    variants    jsonb NOT NULL,
    previous    jsonb,                         -- the variants before this revision
    salt        text NOT NULL,
    fallback    text NOT NULL CHECK (fallback IN ('error', 'previous', 'base')),
    experiment  text,                          -- the running one
    PRIMARY KEY (tenant, name)
);
CREATE TABLE alias_revisions (
    tenant      text COLLATE "C" NOT NULL,
    alias       text COLLATE "C" NOT NULL,
    revision    integer NOT NULL,
    variants    jsonb NOT NULL,
    salt        text NOT NULL,
    fallback    text NOT NULL,
    experiment  text,
    actor       text NOT NULL,
    reason      text NOT NULL,                 -- set, promote, rollback, experiment
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, alias, revision)
);
CREATE TABLE experiments (
    id           text PRIMARY KEY,
    tenant       text COLLATE "C" NOT NULL REFERENCES tenants,
    alias        text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    variants     jsonb NOT NULL,               -- frozen at the start
    metric       text,
    status       text NOT NULL CHECK (status IN ('running', 'stopped')),
    started_at   timestamptz NOT NULL DEFAULT now(),
    stopped_at   timestamptz,
    stop_reason  text
);
CREATE UNIQUE INDEX one_running_experiment ON experiments (tenant, alias) WHERE status = 'running';
CREATE INDEX experiments_of_tenant ON experiments (tenant, started_at);
CREATE TABLE preparations (
    id          text PRIMARY KEY,              -- one swap's wish for one version; two swaps may wish for the same
    ref         text NOT NULL,
    expires_at  timestamptz NOT NULL           -- a swap whose process died leaves nothing behind
);
CREATE UNLOGGED TABLE workers (              -- renewed each second: half-full pages keep updates heap-only
    worker            text PRIMARY KEY,
    snapshot_version  bigint NOT NULL,
    ready             boolean NOT NULL,
    engine_boot       text,
    resident          text[] NOT NULL,
    leased            text[] NOT NULL,
    failed            jsonb NOT NULL,          -- ref → the sentence that says why
    expires_at        timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,
    tenant   text COLLATE "C",                 -- null: the installation's own
    action   text NOT NULL,                    -- alias.promote, key.revoke, …
    subject  text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_of_tenant ON audit (tenant, id);
"""

TRAFFIC = """
CREATE TABLE inferences (
    created_at      timestamptz NOT NULL,
    ttft_ms         real,
    duration_ms     real,
    overhead_ms     real,
    propensity      double precision NOT NULL,
    alias_revision  integer NOT NULL,
    input_tokens    integer,
    output_tokens   integer,
    status          integer NOT NULL,
    stream          boolean NOT NULL,
    id              text COLLATE "C" PRIMARY KEY,  -- 44 hex digits
    tenant          text COLLATE "C" NOT NULL,
    key_id          text NOT NULL,
    endpoint        text NOT NULL,
    alias           text COLLATE "C" NOT NULL,
    experiment      text COLLATE "C",
    variant         text NOT NULL,
    assigned        text NOT NULL,             -- tenant/name@version or "base"
    served          text,
    served_digest   text,
    reason          text NOT NULL,
    unit            text COLLATE "C" NOT NULL, -- 32 hex digits
    episode         text COLLATE "C",
    outcome         text NOT NULL,
    finish_reason   text,
    trace_id        text,
    span_id         text,
    params          json NOT NULL,
    messages        json,                      -- both only where the tenant keeps content
    answer          text
);
CREATE INDEX inferences_for_results ON inferences (experiment, variant, unit) WHERE experiment IS NOT NULL;
CREATE INDEX inferences_for_export ON inferences (tenant, alias, created_at);
CREATE INDEX inferences_of_episode ON inferences (tenant, episode) WHERE episode IS NOT NULL;

CREATE TABLE feedback (
    seq              bigint GENERATED ALWAYS AS IDENTITY,  -- the order of arrival: "latest wins" is by seq
    created_at       timestamptz NOT NULL,
    id               text COLLATE "C" PRIMARY KEY,
    tenant           text COLLATE "C" NOT NULL,
    metric           text COLLATE "C" NOT NULL,
    kind             text NOT NULL,            -- the metric's kind when this was said
    number           double precision,         -- boolean (0 or 1) and float
    words            text,                     -- comment and demonstration
    inference_id     text COLLATE "C",         -- no foreign key: feedback may come before its inference is written
    episode_id       text COLLATE "C",
    comment          text,
    correction       text,
    source           text,
    idempotency_key  text COLLATE "C",
    body_digest      bytea NOT NULL,           -- SHA-256 of what was sent: the same key with another body is refused
    CHECK (num_nonnulls(number, words) = 1),
    CHECK (num_nonnulls(inference_id, episode_id) = 1)
);
CREATE UNIQUE INDEX feedback_idempotency ON feedback (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX feedback_of_inference ON feedback (inference_id, metric, seq) WHERE inference_id IS NOT NULL;
CREATE INDEX feedback_of_episode ON feedback (tenant, episode_id, metric, seq) WHERE episode_id IS NOT NULL;
CREATE INDEX feedback_for_export ON feedback (tenant, created_at);
"""


def upgrade() -> None:
    for script in (CONTROL, POINTERS, TRAFFIC):
        for statement in script.split(";\n"):
            if statement.strip():
                op.execute(statement)
    op.get_bind().execute(
        sa.text("INSERT INTO control_state (secret) VALUES (:secret)"), {"secret": secrets.token_bytes(32)}
    )


def downgrade() -> None:
    raise NotImplementedError("a database goes forward only: restore a backup to go back")
