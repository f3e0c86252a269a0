# long because: one statement, whose parts are read together.
"""The statement that works units out: from their raw rows to their figures, and by how much the totals change.

It is put together from text: units are found by user, by conversation or by inference, and figures are those since a
unit's first exposure or, for the past that steadies them, those before. Nothing here depends on what was worked out
before, except that the totals change by the exact difference to it; so doing it again changes nothing.

The planner cannot know how many rows a unit has, and the way that is best for one is a disaster for thousands. So the
statement runs with `enable_nestloop` off, and says LATERAL wherever an index is to be asked row by row.

Its parameters: $1 experiment, $2 tenant, $3 units, $4 generation, $5 revisions of the epochs, $6 alias, $7 days of the
past, $8 and $9 price of an input and an output token, $10 to $12 the ratios (name, numerator, denominator), $13 the
automatic metrics whose names the tenant has given to its own (they are kept under another, with a "#"), $14 and $15
corrected inferences and their distances, $16 to $18 first exposures, their segments (as JSON) and whether their prompt
is kept, $19 the metric that has segments.
"""

from __future__ import annotations

from gateway.domain import Unit
from gateway.store.marks import RANDOMISED

REFUSAL_LETTERS = 200
REFUSAL = (
    r"^\W*(as an ai\M|(i'?m|i am) (so |very |really )?(sorry|afraid)|i apologi[sz]e|(sorry|unfortunately)\W"
    r"|my apologies|i (can'?t|cannot|can not|won'?t|will not|am not able to|am unable to)\M"
    r"|i('m| am) (not able|unable|not allowed|not permitted)\M"
    r"|es tut mir leid|tut mir leid|entschuldigung|leider kann ich|ich kann (dir|ihnen|das|dabei)? ?(leider )?nicht"
    r"|(je suis )?désolée?|je ne (peux|suis) pas|lo siento|no puedo|mi dispiace|non posso)"
)
"""How refusals open, within the first letters of an answer, in upper or lower case. A heuristic: it counts polite
regrets, too, and misses refusals that begin otherwise. It is for comparing arms, not for judging an answer."""

FAILED = "outcome NOT IN ('ok', 'client_error', 'disconnected')"

AGAIN = "interval '10 minutes'"
"""Who asks the same within this time was not content with the answer."""

ANALYSED = {
    Unit.TARGETING_KEY: "i.unit",
    Unit.EPISODE: "coalesce(i.episode, i.id)",
    Unit.INFERENCE: "i.id",
}
"""What counts as one."""

FOUND = {
    Unit.TARGETING_KEY: "i.unit = ANY ($3)",
    Unit.EPISODE: "(i.episode = ANY ($3) OR (i.id = ANY ($3) AND i.episode IS NULL))",
    Unit.INFERENCE: "i.id = ANY ($3)",
}
"""The rows of the units $3 among those of the experiment."""

_RANDOMISED = RANDOMISED.format(tenant="$2")
EXPOSURES = f"i.experiment = $1 AND i.tenant = $2 AND {_RANDOMISED}"

_ROW = f"""i.id, i.created_at, i.variant, i.alias_revision, i.outcome, i.assigned, i.served, i.ttft_ms, i.duration_ms,
        i.input_tokens, i.output_tokens, i.episode, md5(i.messages::text) AS asked,
        translate(lower(left(i.answer, {REFUSAL_LETTERS})), '\u2019', '''')
            ~ '{REFUSAL.replace("'", "''")}' AS refused"""

# From the rows of units (`{rows}`: au, id, outcome, …, again) to one row for each unit and metric. `kept` is true of a
# metric that every unit has: one that nobody counted anything of is a zero, not a gap.
_FIGURES = """
{p}_said AS MATERIALIZED (
    SELECT m.au, m.id, f.* FROM {rows} m CROSS JOIN LATERAL (
        SELECT f.metric, f.kind, f.source, f.number, f.seq FROM feedback f
        WHERE f.inference_id = m.id AND f.tenant = $2 {when} OFFSET 0) AS f
), {p}_judged AS (
    SELECT DISTINCT ON (id, metric, source) au, metric, kind, number FROM {p}_said WHERE number IS NOT NULL
    ORDER BY id, metric, source, seq DESC
), {p}_judgements AS (
    SELECT * FROM {p}_judged {talks}
), {p}_counted AS (
    SELECT au, count(*) AS n, count(*) FILTER (WHERE failed) AS failed,
           count(*) FILTER (WHERE outcome = 'disconnected') AS gone,
           count(ttft_ms) AS ttft_n, sum(ttft_ms::numeric) AS ttft,
           count(duration_ms) FILTER (WHERE outcome = 'ok') AS latency_n,
           sum(duration_ms::numeric) FILTER (WHERE outcome = 'ok') AS latency,
           count(input_tokens) AS input_n, sum(input_tokens) AS input,
           count(output_tokens) AS output_n, sum(output_tokens) AS output,
           count(refused) AS refused_n, count(*) FILTER (WHERE refused) AS refused,
           count(asked) AS asked_n, count(*) FILTER (WHERE again) AS again
    FROM (SELECT *, {failed} AS failed FROM {rows}) m GROUP BY au
), {p}_automatic AS (
    SELECT au, v.metric, v.n, v.s FROM {p}_counted c CROSS JOIN LATERAL (VALUES
        ('error_rate', c.n::numeric, c.failed::numeric), ('ttft', c.ttft_n, c.ttft),
        ('latency', c.latency_n, c.latency), ('output_tokens', c.output_n, c.output),
        ('refusal_rate', c.refused_n, c.refused), ('regeneration_rate', c.asked_n, c.again),
        ('cost', CASE WHEN c.input_n = c.n AND c.output_n = c.n THEN c.n END,
         c.input * $8::numeric + c.output * $9::numeric)
    ) AS v (metric, n, s) WHERE v.n > 0 AND v.s IS NOT NULL OR v.metric = ANY ($13)
    UNION ALL
    SELECT c.au, 'feedback_rate', c.n, count(DISTINCT s.id) FROM {p}_counted c LEFT JOIN {p}_said s USING (au)
    GROUP BY c.au, c.n
    UNION ALL
    SELECT j.au, 'thumbs_up_rate', count(*), count(*) FILTER (WHERE (j.number = 1) = (d.optimize = 'max'))
    FROM {p}_judgements j JOIN metrics d ON d.tenant = $2 AND d.name = j.metric WHERE j.kind = 'boolean' GROUP BY j.au
    {edits}
), {p}_simple AS (
    SELECT au, CASE WHEN metric = ANY ($13) THEN '#' || metric ELSE metric END AS metric, coalesce(n, 0) AS n,
           coalesce(s, 0) AS s, false AS kept FROM {p}_automatic
    UNION ALL
    SELECT au, metric, CASE WHEN bool_or(kind = 'count') THEN 1 ELSE count(*) END, sum(number::numeric),
           bool_or(kind = 'count') FROM {p}_judgements GROUP BY au, metric
    {traffic}
), {p} AS (
    SELECT * FROM {p}_simple
    UNION ALL
    SELECT f.au, r.name, coalesce(sum(f.s) FILTER (WHERE f.metric = r.denominator), 0),
           coalesce(sum(f.s) FILTER (WHERE f.metric = r.numerator), 0), false
    FROM unnest($10::text[], $11::text[], $12::text[]) AS r (name, numerator, denominator)
    JOIN {p}_simple f ON f.metric IN (r.numerator, r.denominator) GROUP BY f.au, r.name
)"""

_TALKS = """UNION ALL (
        SELECT DISTINCT ON (o.episode, f.metric, f.source) o.au, f.metric, f.kind, f.number
        FROM owners o CROSS JOIN LATERAL (
            SELECT f.metric, f.kind, f.source, f.number, f.seq FROM feedback f
            WHERE f.tenant = $2 AND f.episode_id = o.episode AND f.number IS NOT NULL OFFSET 0) AS f
        ORDER BY o.episode, f.metric, f.source, f.seq DESC
    )"""
_EDITS = """UNION ALL
    SELECT m.au, 'edit_distance', count(*), sum(d.distance)
    FROM unnest($14::text[], $15::numeric[]) AS d (id, distance) JOIN mine m USING (id) GROUP BY m.au"""
_TRAFFIC = """UNION ALL
    SELECT au, '#disconnected', gone, 0, false FROM now_counted WHERE gone > 0
    UNION ALL
    SELECT au, '#input_tokens', input_n, input, false FROM now_counted WHERE input_n > 0
    UNION ALL
    SELECT au, '#served ' || coalesce(served, ''), count(*), 0, false
    FROM mine WHERE served IS DISTINCT FROM assigned GROUP BY au, served"""

_PAST = f"""
earlier AS MATERIALIZED (
    SELECT f.au, f.first_at AS exposed_at, i.*, i.asked IS NOT NULL AND coalesce(
        lead(i.created_at) OVER (PARTITION BY f.au, i.asked ORDER BY i.created_at, i.id) - i.created_at <= {AGAIN},
        false) AS again
    FROM first f CROSS JOIN LATERAL (
        SELECT {_ROW} FROM inferences i WHERE i.unit = f.au AND i.tenant = $2 AND i.alias = $6 AND {_RANDOMISED}
          AND i.created_at < f.first_at AND i.created_at >= f.first_at - make_interval(days => $7) OFFSET 0) AS i
), """  # noqa: S608 — built from constants of this file

_BOTH = """
figures AS (
    SELECT au, metric, CASE WHEN coalesce(n.kept, p.kept) THEN 1 ELSE n.n END AS n, coalesce(n.s, 0) AS s,
           CASE WHEN coalesce(n.kept, p.kept) THEN 1 ELSE coalesce(p.n, 0) END AS m, coalesce(p.s, 0) AS x
    FROM now n FULL JOIN past p USING (au, metric) WHERE n.n IS NOT NULL OR p.kept
)"""
_NOW_ONLY = "figures AS (SELECT au, metric, n, s, 0::numeric AS m, 0::numeric AS x FROM now)"


def statement(unit: Unit, *, past: bool) -> str:
    """For experiments that assign `unit`; with `past`, figures of before the first exposure go with the others."""
    figures = _FIGURES.format(
        p="now", rows="mine", when="", talks=_TALKS, edits=_EDITS, traffic=_TRAFFIC, failed=FAILED
    )
    if past:
        # What is said later of an earlier answer may come of what was seen since.
        before = _FIGURES.format(
            p="past",
            rows="earlier",
            when="AND f.created_at < m.exposed_at",
            talks="",
            edits="",
            traffic="",
            failed=FAILED,
        )
        figures = ",".join((figures, _PAST + before, _BOTH))
    else:
        figures = f"{figures}, {_NOW_ONLY}"
    return _WHOLE.format(
        analysed=ANALYSED[unit], found=FOUND[unit], row=_ROW, exposures=EXPOSURES, again=AGAIN, figures=figures
    )


_LETTERS = ("n", "s", "m", "x")
_PAIRS = tuple((one, other) for at, one in enumerate(_LETTERS) for other in _LETTERS[at:])
_COLUMNS = ("units", *_LETTERS, *(one + other for one, other in _PAIRS))
_DELTAS = ", ".join(
    (*(f"sum(sign * {one}) AS {one}" for one in _LETTERS), *(f"sum(sign * {a} * {b}) AS {a}{b}" for a, b in _PAIRS))
)
_ADDED = ", ".join(f"{name} = totals.{name} + EXCLUDED.{name}" for name in _COLUMNS)

_WHOLE = (
    """
WITH given AS (
    SELECT g.* FROM unnest($16::text[], $17::text[], $18::boolean[]) AS g (first, segments, content)
    WHERE $6::text IS NOT NULL AND $7::integer IS NOT NULL  -- which are needed for the past only
), rows AS MATERIALIZED (
    SELECT i.*, first_value(id) OVER came AS first, first_value(created_at) OVER came AS first_at,
           first_value(variant) OVER came AS home, first_value(alias_revision) OVER came AS revision,
           asked IS NOT NULL AND coalesce(
               lead(created_at) OVER (PARTITION BY au, variant, asked ORDER BY created_at, id) - created_at <= {again},
               false) AS again
    FROM (SELECT {analysed} AS au, {row} FROM inferences i WHERE {found} AND {exposures}) AS i
    WINDOW came AS (PARTITION BY au ORDER BY created_at, id)
), first AS MATERIALIZED (
    SELECT au, first, first_at, home, revision, bool_or(variant <> home) AS moved FROM rows
    GROUP BY au, first, first_at, home, revision
), before AS MATERIALIZED (
    SELECT ctid, * FROM tallies WHERE experiment = $1 AND generation = $4 AND unit = ANY ($3)
), exposed AS MATERIALIZED (
    SELECT f.au, f.first, f.first_at, f.home AS variant, f.moved,
           greatest(width_bucket(f.revision, $5::integer[]) - 1, 0) AS epoch,
           CASE WHEN g.first IS NULL THEN coalesce(b.segments, '{{}}')
                ELSE ARRAY(SELECT jsonb_array_elements_text(g.segments::jsonb)) END AS segments,
           CASE WHEN g.first IS NULL THEN b.content ELSE g.content END AS content
    FROM first f LEFT JOIN given g ON g.first = f.first LEFT JOIN before b ON b.unit = f.au AND b.first = f.first
), mine AS MATERIALIZED (
    SELECT * FROM rows WHERE variant = home
), talks AS (
    SELECT episode FROM (SELECT DISTINCT episode FROM mine WHERE episode IS NOT NULL) AS m CROSS JOIN LATERAL (
        SELECT FROM feedback f WHERE f.tenant = $2 AND f.episode_id = m.episode AND f.number IS NOT NULL LIMIT 1
    ) AS said
), asked_first AS (
    SELECT talks.episode, i.au, i.variant FROM talks CROSS JOIN LATERAL (
        SELECT {analysed} AS au, i.variant FROM inferences i WHERE i.episode = talks.episode AND {exposures}
        ORDER BY i.created_at, i.id LIMIT 1) AS i
), owners AS (
    SELECT o.episode, o.au FROM asked_first o JOIN first f ON f.au = o.au AND f.home = o.variant
), {figures}, news AS MATERIALIZED (
    SELECT f.au, e.variant, e.epoch, e.segments, f.metric, f.n, f.s, f.m, f.x FROM figures f JOIN exposed e USING (au)
    UNION ALL
    SELECT au, variant, epoch, segments, '', moved::integer, 0, 0, 0 FROM exposed
), olds AS MATERIALIZED (
    SELECT unit, variant, epoch, segments, metric, (v -> 0)::numeric, (v -> 1)::numeric,
           coalesce((v -> 2)::numeric, 0), coalesce((v -> 3)::numeric, 0)
    FROM before CROSS JOIN jsonb_each(figures) AS j (metric, v)
    UNION ALL
    SELECT unit, variant, epoch, segments, '', moved::integer, 0, 0, 0 FROM before
), changes AS (
    SELECT 1 AS sign, * FROM (SELECT * FROM news EXCEPT ALL SELECT * FROM olds) AS came
    UNION ALL
    SELECT -1, * FROM (SELECT * FROM olds EXCEPT ALL SELECT * FROM news) AS went
), added AS (
    INSERT INTO totals (experiment, generation, metric, epoch, variant, segment, COLUMNS)
    SELECT $1, $4, metric, epoch, variant, segment, sum(sign) AS units, DELTAS FROM changes
    CROSS JOIN LATERAL unnest(
        ARRAY[''] || CASE WHEN metric IN ('', $19) THEN segments END) AS s (segment)
    GROUP BY metric, epoch, variant, segment
    ON CONFLICT (experiment, generation, metric, epoch, variant, segment) DO UPDATE SET ADDED
), arrived AS (
    INSERT INTO arrivals (experiment, generation, hour, units)
    SELECT $1, $4, hour, sum(sign) FROM (
        SELECT date_trunc('hour', first_at, 'UTC') AS hour, 1 AS sign FROM exposed
        UNION ALL
        SELECT date_trunc('hour', first_at, 'UTC'), -1 FROM before
    ) AS hours GROUP BY hour HAVING sum(sign) <> 0
    ON CONFLICT (experiment, generation, hour) DO UPDATE SET units = arrivals.units + EXCLUDED.units
), gone AS (
    DELETE FROM tallies WHERE ctid = ANY (ARRAY(
        SELECT b.ctid FROM before b LEFT JOIN exposed e ON e.au = b.unit WHERE e.au IS NULL))
)
INSERT INTO tallies AS t (
    first_at, generation, epoch, content, moved, experiment, unit, variant, first, segments, figures)
SELECT first_at, $4, epoch, content, moved, $1, au, variant, first, segments, coalesce(said.figures, '{{}}')
FROM exposed LEFT JOIN (
    SELECT au, jsonb_object_agg(metric, CASE WHEN m = 0 AND x = 0 THEN jsonb_build_array(n, s)
                                             ELSE jsonb_build_array(n, s, m, x) END) AS figures
    FROM figures GROUP BY au
) AS said USING (au)
ON CONFLICT (experiment, generation, unit) DO UPDATE SET
    first_at = EXCLUDED.first_at, epoch = EXCLUDED.epoch, content = EXCLUDED.content, moved = EXCLUDED.moved,
    variant = EXCLUDED.variant, first = EXCLUDED.first, segments = EXCLUDED.segments, figures = EXCLUDED.figures
WHERE (t.first_at, t.epoch, t.content, t.moved, t.variant, t.first, t.segments, t.figures) IS DISTINCT FROM
      (EXCLUDED.first_at, EXCLUDED.epoch, EXCLUDED.content, EXCLUDED.moved, EXCLUDED.variant, EXCLUDED.first,
       EXCLUDED.segments, EXCLUDED.figures)
""".replace("COLUMNS", ", ".join(_COLUMNS))
    .replace("DELTAS", _DELTAS)
    .replace("ADDED", _ADDED)
)
