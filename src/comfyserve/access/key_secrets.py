"""What a key's holder sends: ``cs_``, 160 random bits and a checksum, in letters and digits.

The checksum tells a key that was mistyped or cut from one that is not known. Of the secret only a
plain BLAKE3 hash is kept. A slow, salted hash is for what people choose: nobody guesses 160 random
bits, however fast each guess is, so it would only make every request slow. And who times the
search for a hash learns something about the hash, which does not lead to the secret.
"""

from __future__ import annotations

import secrets
from base64 import b32decode, b32encode
from binascii import Error
from hmac import compare_digest
from typing import Final

from blake3 import blake3

PREFIX: Final = "cs_"

_RANDOM_BYTES: Final = 20
_CHECK_BYTES: Final = 5
_LENGTH: Final = len(PREFIX) + (_RANDOM_BYTES + _CHECK_BYTES) * 8 // 5

# Each use has a context of its own, so that the checksum, which all may see, says nothing of the
# hash. Changing one of these ends every key.
_CHECK_CONTEXT: Final = "comfyserve 2026-11 api key checksum"
_HASH_CONTEXT: Final = "comfyserve 2026-11 api key hash"


def new_secret() -> str:
    """A secret that nobody had before."""
    random = secrets.token_bytes(_RANDOM_BYTES)
    return PREFIX + b32encode(random + _check(random)).decode("ascii").lower()


def is_whole(secret: str) -> bool:
    """Whether it may be a key at all: of the right form, with the right checksum."""
    if len(secret) != _LENGTH or not secret.startswith(PREFIX) or secret != secret.lower():
        return False
    try:
        content = b32decode(secret.removeprefix(PREFIX).upper())
    except (Error, ValueError):
        return False
    random, check = content[:_RANDOM_BYTES], content[_RANDOM_BYTES:]
    return compare_digest(check, _check(random))


def hash_of(secret: str) -> str:
    """What is kept of a secret that `is_whole`, in hexadecimal digits."""
    return blake3(secret.encode("ascii"), derive_key_context=_HASH_CONTEXT).hexdigest()


def _check(random: bytes) -> bytes:
    return blake3(random, derive_key_context=_CHECK_CONTEXT).digest(_CHECK_BYTES)
