"""What operations see: spans, metrics and JSON logs, in OpenTelemetry's words. Never a prompt, an answer or a key.

It is fed once per request, after the answer has left, and keeps counts only: the SDK's histograms cost 13.6 µs a record
(FACTS §3), five of them more than the whole proxy. It knows no other room; a request comes as the `Finished` protocol.
"""

from gateway.telemetry.finished import Finished
from gateway.telemetry.logs import configure_logging, trace_id
from gateway.telemetry.recording import Telemetry, TelemetrySettings
from gateway.telemetry.traces import Trace

__all__ = ["Finished", "Telemetry", "TelemetrySettings", "Trace", "configure_logging", "trace_id"]
