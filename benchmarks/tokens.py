"""What a token costs: remembered, seen for the first time, and forged, beside `jwt.decode` of the same bytes.

PyJWT gets the same key object and is told to check what it can: signature, `exp`, `iat`, `nbf`, `aud`, `iss`. It is
spared what the authenticator does besides: two JSON objects without duplicates, the lifetime, the claim map, the
principal. The contestants take turns and the best round counts. Run it with `python -m benchmarks.tokens`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import jwt

from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.compact import MAX_TOKEN
from authz_middleware.identity.keys.jwk import read_key
from authz_middleware.identity.principal import Principal
from authz_middleware.settings.issuers import IssuerSettings
from tests.support.tokens import AUDIENCE, Issuer, ShownCredentials, base64url, bearer

ROUNDS: Final = 60
ALGORITHMS: Final = ("ES256", "RS256", "EdDSA", "HS256")
TARGETS: Final = {
    "token_cached_us": 2.0,
    **{f"token_first_{name.lower()}_vs_pyjwt": 1.0 for name in ALGORITHMS},
    **{f"token_forged_{what}_vs_pyjwt": 0.2 for what in ("signature", "kid", "alg", "padded")},
}

Call = Callable[[], object]


class Contest:
    """One issuer, and both ways to check its tokens."""

    def __init__(self, alg: str, folder: Path, *others: IssuerSettings) -> None:
        self.issuer = Issuer(alg=alg)
        keys = folder / f"{alg}.json"
        keys.write_text(json.dumps(self.issuer.jwks()))
        settings = IssuerSettings(self.issuer.url, (AUDIENCE,), (alg,), jwks_file=keys)
        # Two tokens by turns, and room to remember one: each is met for the first time.
        self._authenticator = Authenticator([settings, *others], cache_size=1)
        self._authenticator.start()
        self._key = read_key(self.issuer.jwk(), (alg,))._secret_or_public
        self._now = time.time()

    def close(self) -> None:
        self._authenticator.close()

    def ours(self, credentials: ShownCredentials) -> object:
        return self._authenticator.authenticate(credentials, self._now)

    def remembered(self, credentials: ShownCredentials) -> object:
        """As a request asks: what is remembered is answered at once, without the flow that would wait."""
        return self._authenticator.authenticating(credentials, self._now)

    def theirs(self, token: str) -> object:
        return jwt.decode(
            token,
            self._key,  # type: ignore[arg-type]  # whatever PyJWT itself has read
            algorithms=[self.issuer.alg],
            audience=AUDIENCE,
            issuer=self.issuer.url,
            options={"require": ["exp", "iat", "aud", "iss", "sub"]},
        )


def measure() -> dict[str, float]:
    """The figures, by the names under which they are published."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = cached(folder)
        for alg in ALGORITHMS:
            figures.update(first(alg, folder))
        figures.update(forged(folder))
    return figures


@contextlib.contextmanager
def contest(alg: str, folder: Path, *others: IssuerSettings) -> Iterator[Contest]:
    one = Contest(alg, folder, *others)
    try:
        yield one
    finally:
        one.close()


def cached(folder: Path) -> dict[str, float]:
    with contest("ES256", folder) as one:
        credentials = bearer(one.issuer.mint())
        assert isinstance(one.ours(credentials), Principal)
        return {"token_cached_us": best({"ours": lambda: one.remembered(credentials)}, calls=2_000)["ours"]}


def first(alg: str, folder: Path) -> dict[str, float]:
    """A token that has not been seen before, as a ratio and in µs."""
    with contest(alg, folder) as one:
        tokens = [one.issuer.mint(env="production", kind="human") for _ in range(2)]
        shown = [bearer(token) for token in tokens]
        assert all(isinstance(one.ours(credentials), Principal) for credentials in shown)
        times = best(
            {
                "ours": lambda: [one.ours(credentials) for credentials in shown],
                "theirs": lambda: [one.theirs(token) for token in tokens],
            },
            calls=20,
        )
        label = f"token_first_{alg.lower()}"
        return {f"{label}_us": times["ours"] / 2, f"{label}_vs_pyjwt": times["ours"] / times["theirs"]}


def forged(folder: Path) -> dict[str, float]:
    """Tokens of 16 KiB that nobody has signed, each as a ratio."""
    figures = {}
    with contest("ES256", folder) as one, contest("ES256", folder, another_issuer()) as several:
        tokens = forgeries(one.issuer)
        contests = {what: (one, token) for what, token in tokens.items()}
        contests["several_issuers"] = several, without_key(long(several.issuer))
        for what, (which, token) in contests.items():
            assert MAX_TOKEN - 4 <= len(token) <= MAX_TOKEN
            times = best({"ours": refusal(which, token), "theirs": answer(which, token)}, calls=4)
            figures[f"token_forged_{what}_vs_pyjwt"] = times["ours"] / times["theirs"]
    return figures


def another_issuer() -> IssuerSettings:
    """With two of them a token is asked which one it claims to be of, before its signature is checked."""
    issuer = Issuer("https://other.example/")
    return IssuerSettings(issuer.url, (AUDIENCE,), ("ES256",), jwks=issuer.jwks())


def forgeries(issuer: Issuer) -> dict[str, str]:
    text, structure = long(issuer), long(issuer, structured=True)
    return {
        "signature": without_key(text),
        "json": without_key(structure),
        "kid": long(issuer, header={"kid": "made-up"}),
        "alg": long(issuer, header={"alg": "none"}),
        "padded": f"{long(issuer, size=MAX_TOKEN - 2)}==",
    }


def without_key(token: str) -> str:
    return f"{token.rpartition('.')[0]}.{base64url(bytes(range(64)))}"


def long(
    issuer: Issuer, *, header: dict[str, str] | None = None, size: int = MAX_TOKEN, structured: bool = False
) -> str:
    """A token about as long as may be, most of it one claim: a text, or as much JSON as fits."""
    full = {"typ": "at+jwt", "alg": issuer.alg, "kid": issuer.kid, **(header or {})}
    payload_size = (size - len(base64url(full)) - len("..") - 86) * 3 // 4
    opening, unit, closing = (', "pad": [', '{"a":[0]},', "0]}") if structured else (', "pad": "', "x", '"}')
    claims = json.dumps(issuer.claims())[:-1]
    count = (payload_size - len(claims) - len(opening) - len(closing)) // len(unit)
    return issuer.mint_raw((claims + opening + unit * count + closing).ljust(payload_size), header=full)


def refusal(one: Contest, token: str) -> Call:
    credentials = bearer(token)
    assert not isinstance(one.ours(credentials), Principal)
    return lambda: one.ours(credentials)


def answer(one: Contest, token: str) -> Call:
    """What PyJWT says to it; a padded one is as good to it as any other."""

    def call() -> object:
        try:
            return one.theirs(token)
        except jwt.InvalidTokenError as error:
            return error

    return call


def best(contestants: dict[str, Call], *, calls: int) -> dict[str, float]:
    """The best time of a call in µs, of rounds in which every contestant takes its turn."""
    times = dict.fromkeys(contestants, float("inf"))
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, call in contestants.items():
                start = time.perf_counter()
                for _ in range(calls):
                    call()
                times[name] = min(times[name], (time.perf_counter() - start) / calls * 1e6)
    finally:
        gc.enable()
    return times


def main() -> None:
    for name, value in measure().items():
        target = f"   target <= {TARGETS[name]:g}" if name in TARGETS else ""
        print(f"{name:34} {value:9.3f}{target}")


if __name__ == "__main__":
    main()
