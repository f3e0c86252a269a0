"""The gateway that a run asks, learns from and publishes to."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from adapters.ref import is_slug
from trainer.settings.base import Settings, address, bearer


class GatewayAccess(Settings):
    url: str | None = None
    key: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return address(value) if value else None

    @field_validator("key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        return bearer(value)


class PublishSettings(Settings):
    """Where the adapter goes: into a store that the gateway reads too, or else to the gateway by upload."""

    tenant: str | None = None
    name: str | None = None
    store: str | None = Field(None, description="a directory or an fsspec URL, as the gateway's adapter store")
    parent: str | None = Field(None, description="the version this one replaces, for its lineage")

    @field_validator("tenant", "name")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not is_slug(value):
            raise ValueError("use 1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit")
        return value
