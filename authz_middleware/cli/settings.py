"""`authz settings …`: would an application start with these settings?"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Annotated

import typer

from authz_middleware.cli.output import err, fail, out, tell
from authz_middleware.errors import PolicyError, SettingsError
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.policy.store import SnapshotStore
from authz_middleware.remote.credentials.reminder import reminder
from authz_middleware.revocation.guard import Revocations
from authz_middleware.settings import Settings
from authz_middleware.settings.remote.credential import ClientCredentials, CredentialSettings, StaticToken, TokenFile
from authz_middleware.settings.remote.rotation import day_of, rotation_problem
from authz_middleware.startup import policy_problems

app = typer.Typer(help="Settings.", no_args_is_help=True)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="authz.toml, or pyproject.toml with [tool.authz].", show_default=False)],
) -> None:
    """Check a settings file and the policy it names, and show what they say. Nothing is fetched or written."""
    try:
        settings = Settings.from_toml(file)
        authenticator = Authenticator.of(settings)
        Revocations.of(settings, authenticator.keys_of)
    except SettingsError as error:
        fail(error)
    problem = rotation_problem(_credential(settings), day_of(time.time()))
    if problem is not None:
        fail(SettingsError([problem]))
    store = SnapshotStore(settings.policy.source, check=functools.partial(policy_problems, settings))
    try:
        store.reload()
    except PolicyError as error:
        fail(error)
    tell(str(file), "bold green", "these settings can be used")
    warning = reminder(_credential(settings), time.time())
    if warning is not None:
        tell("warning", "bold yellow", warning, err)
    for label, value in _rows(settings):
        out.print(f"  {label:<16}{value}", markup=False)


def _rows(settings: Settings) -> list[tuple[str, str]]:
    fallback = settings.fallback
    default = "none chosen" if fallback.default is None else fallback.default.mode.value
    return [
        ("application", f"{settings.app.name} in {settings.app.environment}, mode {settings.app.mode}"),
        *(("issuer", f"{issuer.issuer} for {', '.join(issuer.audience)}") for issuer in settings.issuers),
        *(("trust domain", domain.name) for domain in settings.trust_domains),
        *(("certificate", f"{known.subject}, {thumbprint}") for thumbprint, known in settings.certificates.items()),
        ("proxies", _proxies(settings)),
        ("policy", str(settings.policy.source)),
        ("decision point", "none" if settings.remote is None else settings.remote.url),
        *([("", _shown(settings.remote.credential))] if settings.remote is not None else []),
        ("fallback", default),
        *(("", f"{choice.mode.value} for {action}") for action, choice in sorted(fallback.actions.items())),
        ("revocations", _revocations(settings)),
        ("decision log", f"{settings.decision_log.sink}, {settings.decision_log.mode}"),
    ]


def _credential(settings: Settings) -> CredentialSettings | None:
    return None if settings.remote is None else settings.remote.credential


def _shown(credential: CredentialSettings | None) -> str:
    """What the decision point knows us by."""
    match credential:
        case TokenFile():
            return f"token in {credential.path}"
        case StaticToken():
            where = credential.secret.where
            return f"secret in {where}, to be replaced by {credential.rotate_by} (owner: {credential.owner})"
        case ClientCredentials():
            return f"token for {credential.client_id} from {credential.token_endpoint}"
        case _:
            return "asked without a token"


def _proxies(settings: Settings) -> str:
    proxies = settings.proxies
    if proxies is None:
        return "none: no forwarded header is read"
    return ", ".join([*map(str, proxies.networks), *(["unix"] if proxies.unix else [])])


def _revocations(settings: Settings) -> str:
    chosen = settings.revocations
    if chosen is None:
        return "none: nothing can be revoked"
    where = chosen.file or (chosen.redis.host if chosen.redis else "in the memory of each process")
    return f"{where}; unreadable: {chosen.on_unavailable.default.mode}"
