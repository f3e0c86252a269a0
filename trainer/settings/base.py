"""What all settings are: frozen, and nothing that has no name here."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def address(value: str) -> str:
    """An address over HTTP, without a slash at its end. Raises `ValueError`."""
    parts = urlsplit(value)  # raises ValueError itself, for brackets that do not match
    if parts.scheme not in ("http", "https"):
        raise ValueError("begins with neither http:// nor https://")
    if not parts.hostname or parts.port == 0:  # asking for the port raises ValueError where it is no number
        raise ValueError("names no host, or port 0")
    return value.rstrip("/")


def bearer(value: SecretStr | None) -> SecretStr | None:
    """A key that a header can hold, without the white space of the file it came from. Raises `ValueError`."""
    if value is None:
        return None
    key = value.get_secret_value().strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError("holds characters that no key has")
    return SecretStr(key)
