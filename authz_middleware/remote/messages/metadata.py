"""The metadata of a decision point (AuthZEN 1.0, section 9): whose it is, and where its APIs are.

Our credential is sent to what it names, and decisions are taken from there. So it counts only as that of exactly the
decision point that was asked for it, and names only addresses on that one's host, or on one that the settings allow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from authz_middleware.address import Address, Place, parse_address
from authz_middleware.identity.compact import RawToken, parse_token
from authz_middleware.identity.keys.jwk import KEY_ID, Keyring
from authz_middleware.identity.kinds import OTHER_KINDS, kind_of
from authz_middleware.identity.problem import TokenRefusedError
from authz_middleware.settings.remote.endpoints import Api
from authz_middleware.strict_json import StrictJSONError, parse_object

WELL_KNOWN: Final = "/.well-known/authzen-configuration"
PARAMETERS: Final[Mapping[Api, str]] = {
    "evaluation": "access_evaluation_endpoint",
    "evaluations": "access_evaluations_endpoint",
    "search_subject": "search_subject_endpoint",
    "search_resource": "search_resource_endpoint",
    "search_action": "search_action_endpoint",
}

# The specification has no `typ` for signed metadata; but what says that it is something else is none (RFC 8725 section
# 3.12).
_SOMETHING_ELSE: Final = OTHER_KINDS | {"at+jwt"}
_UNDERSTOOD_BY_NOBODY_HERE: Final = frozenset({"crit", "zip", "b64"})
# The end of the year 9999; what lies beyond breaks date arithmetic elsewhere.
_MAX_TIME: Final = 253_402_300_799
_LEEWAY_S: Final = 60.0


class MetadataError(Exception):
    """Metadata that is not used. `code` is stable and names the check; it holds nothing of the document."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def metadata_url(identifier: str) -> str:
    """Where the metadata of the decision point with this identifier (a URL) is: the well-known path stands between the
    host and the identifier's own path (section 9.2), of which a slash at the end is left out (RFC 9728 section 3.1)."""
    parts = urlsplit(identifier)
    return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.removesuffix('/')}"


def read_metadata(document: bytes, identifier: str, hosts: Collection[Place] = ()) -> dict[Api, str]:
    """The endpoints in the metadata of exactly this decision point; it does not have an API that it does not name.
    `hosts` may have endpoints beside the identifier's own. Raises MetadataError."""
    return _endpoints(_parse(document, identifier), identifier, hosts)


def read_signed_metadata(
    document: bytes,
    identifier: str,
    hosts: Collection[Place] = (),
    *,
    keys: Keyring,
    issuer: str,
    now: float,
) -> dict[Api, str]:
    """`read_metadata` of the `signed_metadata` alone (section 9.1.3), so that whatever is not signed says nothing.

    The signature must be by one of `keys`, each of which brings its algorithm, and `iss` must be `issuer`. The claims
    must name the decision point themselves: one issuer may sign for many. `now` is in seconds since the epoch. Raises
    MetadataError.
    """
    signed = _parse(document, identifier).get("signed_metadata")
    if not isinstance(signed, str):
        raise MetadataError("discovery.unsigned")
    claims = _verified(signed, keys)
    if claims.get("iss") != issuer:
        raise MetadataError("discovery.signer")
    if "signed_metadata" in claims:
        raise MetadataError("discovery.signed_twice")
    _check_times(claims, now)
    _check_identity(claims, identifier)
    return _endpoints(claims, identifier, hosts)


def _parse(document: bytes, identifier: str) -> dict[str, Any]:
    try:
        metadata = parse_object(document)
    except StrictJSONError:
        raise MetadataError("discovery.malformed") from None
    _check_identity(metadata, identifier)
    return metadata


def _check_identity(metadata: Mapping[str, Any], identifier: str) -> None:
    if metadata.get("policy_decision_point") != identifier:
        raise MetadataError("discovery.identity")


def _endpoints(metadata: Mapping[str, Any], identifier: str, hosts: Collection[Place]) -> dict[Api, str]:
    home = parse_address(identifier)
    return {
        api: _endpoint(metadata[parameter], home, hosts)
        for api, parameter in PARAMETERS.items()
        if parameter in metadata
    }


def _endpoint(url: object, home: Address, hosts: Collection[Place]) -> str:
    try:
        address = parse_address(url) if isinstance(url, str) else None
    except ValueError:
        address = None
    if address is None or not isinstance(url, str) or "?" in url:
        raise MetadataError("discovery.endpoint")
    if address.place not in (home.place, *hosts) or address.secure < home.secure:
        raise MetadataError("discovery.origin")
    return url


def _verified(signed: str, keys: Keyring) -> Mapping[str, Any]:
    """The claims, once the signature holds."""
    try:
        token = parse_token(signed)
        if not _is_signed(token, keys):
            raise MetadataError("discovery.signature")
        return token.unverified_claims
    except TokenRefusedError:
        raise MetadataError("discovery.signature") from None


def _is_signed(token: RawToken, keys: Keyring) -> bool:
    header = token.unverified_header
    kid, algorithm = header.get("kid"), header.get("alg")
    if not _UNDERSTOOD_BY_NOBODY_HERE.isdisjoint(header) or kind_of(header.get("typ")) in _SOMETHING_ELSE:
        return False
    if "kid" in header and not (isinstance(kid, str) and KEY_ID.fullmatch(kid)):
        return False
    if not isinstance(algorithm, str):
        return False
    return keys.select(kid, algorithm).verifies(token.signed, token.signature)


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    for name in ("exp", "nbf", "iat"):
        value: Any = claims.get(name, now)
        # An exact type: true is an int in Python.
        if name in claims and (type(value) not in (int, float) or not 0 <= value <= _MAX_TIME):
            raise MetadataError("discovery.times")
        if name in claims and (now >= value if name == "exp" else value > now + _LEEWAY_S):
            raise MetadataError("discovery.times")
