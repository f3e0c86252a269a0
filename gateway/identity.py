"""Names that are born here and can be checked without a database: inference ids, units, cache salts, API keys.

It knows nothing of requests, snapshots or storage: secrets and names in, text out. `secret` is the installation's key
(`Snapshot.secret`); each use is told apart by a prefix, so that one kind of name never passes for another.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import re
import secrets
import time
from functools import lru_cache

_HEX44 = re.compile(r"[0-9a-f]{44}\Z")
_WRITTEN = re.compile(r"(?:chatcmpl-|cmpl-|resp_|msg_|embd-)?([0-9a-f]{44})\Z")
_TAG_BYTES = 6
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?7[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}\Z", re.IGNORECASE)
_PROOF = 8
"""Hex digits at the end of a UUID that proves itself."""
_VERSION, _CHANCE = 0x7 << 76 | 0x2 << 62, (1 << 12) - 1 << 64 | (1 << 62) - 1


def new_inference_id(secret: bytes, tenant: str) -> str:
    """44 hex characters: a UUIDv7 (32) and a tag (12) that says it was given to `tenant`.

    The client sees it behind `chatcmpl-` or another prefix; stored and sent upstream it is bare.
    """
    # RFC 9562: 48 bits of milliseconds, version 7, 12 random bits, variant 0b10, 62 random bits.
    # To be unique is enough: that it cannot be made up is the tag's part.
    uuid = "%032x" % (time.time_ns() // 1_000_000 << 80 | _VERSION | random.getrandbits(80) & _CHANCE)
    return uuid + _tag(secret, tenant, uuid)


def new_inference_uuid(secret: bytes, tenant: str) -> str:
    """An inference id like any other, whose first 32 hex are enough for its tenant to know it again.

    For clients that take nothing but a UUID: its last 32 bits are no chance, but a tag of the 96 before them. The 42
    random bits left are enough: at 10,000 ids a second, all in one tenant, two are the same once in three years.
    """
    begun = "%024x" % ((time.time_ns() // 1_000_000 << 80 | _VERSION | random.getrandbits(80) & _CHANCE) >> 32)
    uuid = begun + _proof(secret, tenant, begun)
    return uuid + _tag(secret, tenant, uuid)


def inference_of_uuid(secret: bytes, tenant: str, text: str) -> str | None:
    """The bare id (44 hex) whose UUID this is, with hyphens or without; None if it was not given to `tenant`.

    Those of `new_inference_id` are no such UUIDs: nothing in their first 32 hex says whose they are.
    """
    if _UUID.match(text) is None:
        return None
    uuid = text.replace("-", "").lower()
    if not hmac.compare_digest(_proof(secret, tenant, uuid[:-_PROOF]), uuid[-_PROOF:]):
        return None
    return uuid + _tag(secret, tenant, uuid)


def written_uuid(inference_id: str) -> str:
    """The UUID in a bare inference id, with hyphens."""
    one = inference_id
    return f"{one[:8]}-{one[8:12]}-{one[12:16]}-{one[16:20]}-{one[20:32]}"


def new_episode() -> str:
    """The name of an episode that begins: a UUIDv7 with hyphens. It proves nothing; clients may make up their own."""
    drawn = time.time_ns() // 1_000_000 << 80 | _VERSION | random.getrandbits(80) & _CHANCE
    return written_uuid(f"{drawn:032x}")


def canonical_inference_id(text: str) -> str | None:
    """The bare 44 hex of an id as clients write it: behind any endpoint's prefix, or bare. None if it is none."""
    found = _WRITTEN.match(text)
    return found[1] if found is not None else None


def is_inference_of(secret: bytes, tenant: str, inference_id: str) -> bool:
    """Whether the bare `inference_id` was really given to `tenant`. Made-up and foreign ids look the same: False."""
    if _HEX44.match(inference_id) is None:
        return False
    return hmac.compare_digest(_tag(secret, tenant, inference_id[:32]), inference_id[32:])


def unit_of(secret: bytes, tenant: str, targeting_key: str) -> str:
    """The unit of analysis, 32 hex: the same for one user of one tenant, and no way back to the targeting key."""
    hashed = _begun(secret, "unit", tenant, 16).copy()
    hashed.update(targeting_key.encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()


@lru_cache(maxsize=4096)
def cache_salt(secret: bytes, tenant: str) -> str:
    """64 hex that keep one tenant's prefix cache apart from another's (CVE-2025-46570)."""
    return _begun(secret, "cache", tenant, 32).hexdigest()


def hash_key(key: str) -> bytes:
    """What is stored of an API key: its SHA-256 (32 bytes). Keys carry 256 random bits, so no salt is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def new_api_key() -> tuple[str, str, bytes]:
    """`(key, prefix, digest)`: the text to show once, its first part that may be shown for ever, and what to store."""
    # The two parts are drawn apart: the visible one tells nothing about the 256 secret bits.
    prefix = f"tl-{secrets.token_hex(4)}"
    key = f"{prefix}-{secrets.token_urlsafe(32)}"
    return key, prefix, hash_key(key)


def _tag(secret: bytes, tenant: str, uuid: str) -> str:
    hashed = _begun(secret, "inference", tenant, _TAG_BYTES).copy()
    hashed.update(uuid.encode())
    return hashed.hexdigest()


def _proof(secret: bytes, tenant: str, begun: str) -> str:
    hashed = _begun(secret, "uuid", tenant, _PROOF // 2).copy()
    hashed.update(begun.encode())
    return hashed.hexdigest()


@lru_cache(maxsize=4096)
def _begun(secret: bytes, use: str, tenant: str, size: int) -> hashlib.blake2b:
    """A MAC that has taken in its key, its use and its tenant: to be copied, not used.

    Keyed BLAKE2b (RFC 7693) is a MAC by itself: 0.6 µs from here, where HMAC-SHA256 takes 4.6, three times a request.
    A tenant's name holds no colon, so no two (use, tenant, text) make the same message.
    """
    key = secret if len(secret) <= hashlib.blake2b.MAX_KEY_SIZE else hashlib.sha256(secret).digest()
    return hashlib.blake2b(f"{use}:{tenant}:".encode("utf-8", "surrogatepass"), key=key, digest_size=size)
