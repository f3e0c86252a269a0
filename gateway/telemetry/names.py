"""OpenTelemetry's names, as constants: the GenAI conventions live in a repository of their own and are in Development.

Source: open-telemetry/semantic-conventions-genai, gen-ai-spans and gen-ai-metrics; feature-flag events; http metrics.
"""

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  # the name of an attribute
ERROR_TYPE = "error.type"
TENANT = "tuneloop.tenant"
EXPERIMENT = "tuneloop.experiment"
OVERFLOW = "otel.metric.overflow"

EVALUATION = "feature_flag.evaluation"
FLAG_KEY = "feature_flag.key"
FLAG_VARIANT = "feature_flag.result.variant"
FLAG_REASON = "feature_flag.result.reason"
FLAG_CONTEXT = "feature_flag.context.id"
FLAG_SET = "feature_flag.set.id"
FLAG_VERSION = "feature_flag.version"

JUDGED = "gen_ai.evaluation.result"
JUDGED_METRIC = "gen_ai.evaluation.name"
JUDGED_SCORE = "gen_ai.evaluation.score.value"
JUDGED_LABEL = "gen_ai.evaluation.score.label"

STAGE_CHANGED = "tuneloop.experiment.stage"
VERDICT_CHANGED = "tuneloop.experiment.verdict"
CHANGE_FROM = "tuneloop.change.from"
CHANGE_TO = "tuneloop.change.to"
CHANGE_REASON = "tuneloop.change.reason"
CHANGE_ACTOR = "tuneloop.change.actor"

METHOD = "http.request.method"
ROUTE = "http.route"
STATUS_CODE = "http.response.status_code"

REQUEST_DURATION = "gen_ai.server.request.duration"
TIME_TO_FIRST_TOKEN = "gen_ai.server.time_to_first_token"  # noqa: S105  # the name of a metric
TIME_PER_OUTPUT_TOKEN = "gen_ai.server.time_per_output_token"  # noqa: S105  # the name of a metric
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105  # the name of a metric
HTTP_DURATION = "http.server.request.duration"
OVERHEAD = "tuneloop.gateway.overhead"
LOOP_LAG = "tuneloop.loop.lag"
EVALUATION_LAG = "tuneloop.evaluation.lag"
EVALUATION_DURATION = "tuneloop.evaluation.duration"
EVALUATED_UNITS = "tuneloop.evaluation.units"
EVALUATION_SET_ASIDE = "tuneloop.evaluation.set_aside"
EVALUATION_FAILURES = "tuneloop.evaluation.failures"

# Bucket bounds as the conventions advise.
DURATION_BOUNDS = tuple(0.01 * 2**step for step in range(14))
FIRST_TOKEN_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
PER_TOKEN_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
USAGE_BOUNDS = tuple(float(4**step) for step in range(14))
HTTP_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
LOOP_LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 1.0)
OVERHEAD_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
