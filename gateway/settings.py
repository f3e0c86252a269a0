"""The only reader of the environment. Every setting is `GATEWAY_<NAME>`, nested ones `GATEWAY_ENGINE__<NAME>`.

An option exists because somebody named would set it; the rest are constants next to the code that uses them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class EngineKind(StrEnum):
    VLLM = "vllm"
    URL = "url"
    FAKE = "fake"


class EngineSettings(BaseModel):
    """The engine behind the seam. `url` is `http://host:port` or `unix:/path.sock`."""

    kind: EngineKind = EngineKind.VLLM
    url: str | None = None
    python: str | None = Field(None, description="interpreter of the engine's own environment; the gateway's if unset")
    command: list[str] | None = Field(None, description="replaces `python -m vllm.entrypoints.openai.api_server`")
    args: list[str] = Field(default_factory=list, description="further arguments for vLLM, as it spells them")
    env: dict[str, str] = Field(default_factory=dict, description="further environment variables for the child")
    max_loras: int = Field(4, ge=2, description="adapters in one batch; one slot stays free for a swap")
    max_cpu_loras: int = Field(16, ge=2, description="adapters registered at once")
    max_lora_rank: int = 64
    start_seconds: float = Field(600, description="how long the child may take until it has generated a token")
    silence_seconds: float = Field(
        120, gt=0, description="a child that generates nothing for so long, though asked, is ended and started again"
    )
    lane: bool = Field(True, description="let the usual chunks of streams pass in compiled code, where it was compiled")


class TimeoutSettings(BaseModel):
    """Seconds, towards the engine."""

    connect: float = 5
    first_byte: float = 300
    idle: float = 60
    total: float = 1800


class PriceSettings(BaseModel):
    """Of a million tokens that are read, and written. While one is unset, experiments have no metric `cost`."""

    input: Decimal | None = Field(None, ge=0, max_digits=18)
    output: Decimal | None = Field(None, ge=0, max_digits=18)
    currency: str = Field("USD", min_length=1, max_length=8)

    @property
    def shown(self) -> str | None:
        """In which currency there is a cost, if there is any."""
        return None if self.input is None or self.output is None else self.currency


class WebhookSettings(BaseModel):
    """Who is told of what experiments come to (docs/evaluation.md): nobody while `url` is unset."""

    url: str | None = Field(None, pattern=r"^https?://[^\s/]")
    secret: SecretStr | None = Field(None, description="signs what is sent; `whsec_` and base64, or any text")

    @model_validator(mode="after")
    def _signed(self) -> WebhookSettings:
        if self.url is not None and not (self.secret and self.secret.get_secret_value()):
            raise ValueError("a webhook's receiver must be able to tell who calls: set GATEWAY_WEBHOOK__SECRET too")
        return self


class Settings(BaseSettings):
    """What an operator may set. Defaults run everything embedded, in `home`."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", env_nested_delimiter="__", extra="forbid")

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = Field(1, ge=1)
    home: Path = Field(Path(".tuneloop"), description="embedded database, adapter store, logs, the generated admin key")
    database_url: str | None = Field(None, description="postgresql://…; embedded when unset")
    admin_key: SecretStr | None = Field(None, description="generated into home/admin.key when unset")
    adapter_store: str | None = Field(None, description="a directory or an fsspec URL; home/adapters when unset")
    base_model: str = Field(
        "HuggingFaceTB/SmolLM2-135M-Instruct", description="the base model's name, as adapters know it"
    )
    model_path: Path | None = Field(
        None, description="a local directory that holds it; by name from the hub when unset"
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    timeouts: TimeoutSettings = Field(default_factory=TimeoutSettings)
    max_body_bytes: int = 8 * 1024 * 1024
    max_adapter_bytes: int = 1024 * 1024 * 1024
    drain_seconds: float = Field(30, description="how long open streams may take after SIGTERM")
    recorder_queue: int = Field(20_000, description="inferences waiting for the database; more are dropped and counted")
    trace_ratio: float = Field(0.1, ge=0, le=1)
    evaluation_seconds: float = Field(30, gt=0, le=3600, description="between two looks at a running experiment")
    price: PriceSettings = Field(default_factory=PriceSettings)
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)

    @property
    def store_url(self) -> str:
        """Where adapters are kept."""
        return self.adapter_store or str((self.home / "adapters").resolve())

    @property
    def run_dir(self) -> Path:
        """A short directory for Unix sockets (their paths end at 107 bytes), one per `home`, private to this user."""
        mark = hashlib.sha256(str(self.home.resolve()).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"tuneloop-{os.getuid()}-{mark}"

    @property
    def otlp_signals(self) -> frozenset[str]:
        """Those of "traces", "metrics" and "logs" for which OpenTelemetry's own variables name an endpoint."""
        signals = ("traces", "metrics", "logs")
        if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            return frozenset(signals)
        return frozenset(s for s in signals if os.environ.get(f"OTEL_EXPORTER_OTLP_{s.upper()}_ENDPOINT"))

    def environment(self) -> dict[str, str]:
        """The environment of a worker: ours, and these settings, so that it reads the same."""
        open_ones = self.model_dump_json(exclude={"admin_key": True, "webhook": True}, exclude_none=True)
        child = {**os.environ, "GATEWAY_SETTINGS_JSON": open_ones}
        if self.admin_key is not None:
            child["GATEWAY_ADMIN_KEY"] = self.admin_key.get_secret_value()
        if self.webhook.url is not None and self.webhook.secret is not None:
            child["GATEWAY_WEBHOOK__URL"] = self.webhook.url
            child["GATEWAY_WEBHOOK__SECRET"] = self.webhook.secret.get_secret_value()
        return child


def load() -> Settings:
    """Read the environment once. In a worker, what the supervisor resolved comes first."""
    resolved = os.environ.get("GATEWAY_SETTINGS_JSON")
    if resolved is None:
        return Settings()
    key = os.environ.get("GATEWAY_ADMIN_KEY")
    settings = Settings.model_validate_json(resolved)
    told = {"url": os.environ.get("GATEWAY_WEBHOOK__URL"), "secret": os.environ.get("GATEWAY_WEBHOOK__SECRET")}
    webhook = WebhookSettings.model_validate(told)
    return settings.model_copy(update={"admin_key": SecretStr(key) if key else None, "webhook": webhook})


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Where the command line finds a running gateway, and the key it shows there."""

    url: str
    admin_key: str | None = field(repr=False)


def client_settings() -> ClientSettings:
    """From GATEWAY_URL and GATEWAY_ADMIN_KEY."""
    url = os.environ.get("GATEWAY_URL") or "http://127.0.0.1:8080"
    return ClientSettings(url.rstrip("/"), os.environ.get("GATEWAY_ADMIN_KEY") or None)
