"""Tallies: what each unit of an experiment comes to, the totals over them, and the marks that keep both current.

`docs/tallies.md` is the whole story. A mark says that something was written about an inference, a conversation or a
user; it is appended in that writer's transaction and deleted by whoever works it in, so the table is nearly always
empty and is vacuumed early. An experiment of before has no marks: it gets a row in `tallied` with the recipe '', which
nobody works by, so all of it is worked out anew in the background.

`figures` of a unit is a jsonb object: metric → [n, s] or [n, s, m, x] (`gateway.experiment.Sums`), exact decimals. In
`totals` the metric '' counts exposed units (`n`: how many of them were moved), the segment '' is everything.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
CREATE TABLE marks (
    tenant      text COLLATE "C" NOT NULL,
    experiment  text COLLATE "C",              -- whose results surely change, if the writer could tell
    inference   text COLLATE "C",
    episode     text COLLATE "C",
    unit        text COLLATE "C",
    CHECK (num_nonnulls(inference, episode, unit) = 1)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000)""",
    """
CREATE TABLE tallied (
    experiment  text COLLATE "C" PRIMARY KEY,
    generation  integer NOT NULL,              -- of tallies, totals and arrivals: the one that is read
    recipe      text NOT NULL,                 -- how it is worked out; another recipe is another generation
    building    integer,                       -- the one that a rebuild is making
    build_recipe text,
    reached     text COLLATE "C",              -- the last user that the rebuild has seen
    leftovers   boolean NOT NULL DEFAULT false -- generations of before wait for their deletion
)""",
    """
CREATE TABLE tallies (                         -- a tenth of each page stays free: updates are heap-only
    first_at    timestamptz NOT NULL,
    generation  integer NOT NULL,
    epoch       integer NOT NULL,
    content     boolean,                       -- whether the first exposure's prompt was kept when this was written
    moved       boolean NOT NULL,
    experiment  text COLLATE "C" NOT NULL,
    unit        text COLLATE "C" NOT NULL,
    variant     text COLLATE "C" NOT NULL,
    first       text COLLATE "C" NOT NULL,     -- the first exposure's inference
    segments    text[] COLLATE "C" NOT NULL,
    figures     jsonb NOT NULL,
    PRIMARY KEY (experiment, generation, unit)
) WITH (fillfactor = 90)""",
    """
CREATE TABLE totals (                          -- half-full pages keep updates heap-only
    experiment  text COLLATE "C" NOT NULL,
    generation  integer NOT NULL,
    metric      text COLLATE "C" NOT NULL,
    epoch       integer NOT NULL,
    variant     text COLLATE "C" NOT NULL,
    segment     text COLLATE "C" NOT NULL,
    units       bigint NOT NULL,
    n numeric NOT NULL, s numeric NOT NULL, m numeric NOT NULL, x numeric NOT NULL,
    nn numeric NOT NULL, ns numeric NOT NULL, nm numeric NOT NULL, nx numeric NOT NULL,
    ss numeric NOT NULL, sm numeric NOT NULL, sx numeric NOT NULL,
    mm numeric NOT NULL, mx numeric NOT NULL, xx numeric NOT NULL,
    PRIMARY KEY (experiment, generation, metric, epoch, variant, segment)
) WITH (fillfactor = 50)""",
    """
CREATE TABLE arrivals (
    experiment  text COLLATE "C" NOT NULL,
    generation  integer NOT NULL,
    hour        timestamptz NOT NULL,
    units       bigint NOT NULL,               -- first exposures in this hour
    PRIMARY KEY (experiment, generation, hour)
) WITH (fillfactor = 50)""",
    """
CREATE TABLE set_aside (                       -- units that could not be worked out; nearly always empty
    experiment  text COLLATE "C" NOT NULL,
    unit        text COLLATE "C" NOT NULL,
    together    integer NOT NULL,              -- how many failed in one piece, this one among them
    again_at    timestamptz NOT NULL,
    PRIMARY KEY (experiment, unit)
)""",
    "CREATE INDEX set_aside_by_time ON set_aside (again_at)",
    """
CREATE TABLE segment_words (                   -- the few languages and tags that an experiment tells apart
    experiment  text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    value       text COLLATE "C" NOT NULL,
    PRIMARY KEY (experiment, key, value)
)""",
    """
CREATE TABLE token_price (                     -- as the newest settings have it; no row: there is no cost
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    input     numeric NOT NULL,                -- of one token
    output    numeric NOT NULL,
    currency  text NOT NULL
)""",
    "INSERT INTO tallied (experiment, generation, recipe) SELECT id, 0, '' FROM experiments",
    "DROP INDEX inferences_for_results",  # by variant first: it could not give one unit's rows
    "CREATE INDEX inferences_for_tallies ON inferences (experiment, unit) WHERE experiment IS NOT NULL",
    "CREATE INDEX inferences_pinned ON inferences (tenant, alias, created_at) "
    "WHERE reason = 'targeting_match' AND shadow_of IS NULL",  # few, in none of the experiments
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a database goes forward only: restore a backup to go back")
