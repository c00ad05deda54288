"""Settings: everything a person may write, and what is said when it cannot be meant."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz_middleware.decision import FallbackMode
from authz_middleware.duration import parse_duration
from authz_middleware.errors import SettingsError
from authz_middleware.permission import Permission, PublicAccess
from authz_middleware.settings import FallbackChoice, FallbackSettings, Secret, Settings
from authz_middleware.settings.remote.credential import TokenFile
from authz_middleware.settings.secret import SecretUnavailableError

COMPLETE: dict[str, Any] = {
    "app": {"name": "billing", "environment": "production"},
    "issuers": [
        {
            "issuer": "https://idp.example.com/",
            "audience": ["billing-api"],
            "jwks_uri": "https://idp.example.com/jwks",
            "algorithms": ["ES256"],
            "max_lifetime": "15m",
        }
    ],
    "policy": {"source": "billing.yaml", "allow_unsigned": True},
    "remote": {
        "url": "https://pdp.example.com",
        "deadline": "200ms",
        "credential": {"token_file": "pdp.token"},
        "breaker": {"failures": 3, "pause": "2s"},
    },
    "fallback": {
        "default": "deny",
        "actions": {
            "invoice:export": {"mode": "cached", "max_stale": "60s"},
            "report:*": {"mode": "degrade", "rules": "read-only"},
        },
    },
    "decision_log": {"mode": "required", "sink": "file:decisions.jsonl"},
    "handlers": {
        "admin:*": {"action": "admin:use", "sensitive": True, "kinds": ["human"]},
        "static": {"public": {"reason": "style sheets", "owner": "web"}},
    },
}


def with_(path: str, value: Any) -> dict[str, Any]:
    """COMPLETE with one value replaced (or, for `...`, removed)."""
    values = copy.deepcopy(COMPLETE)
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    table: Any = values
    for step in way:
        table = table[step]
    if value is ...:
        del table[last]
    else:
        table[last] = value
    return values


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(values)
    return [str(problem) for problem in caught.value.problems]


def test_durations_become_seconds_and_paths_start_from_the_base() -> None:
    settings = Settings.from_mapping(COMPLETE, base=Path("/etc/billing"))
    assert settings.issuers[0].max_lifetime == 900
    assert settings.remote is not None
    assert settings.remote.deadline == 0.2
    assert settings.remote.breaker.pause == 2.0
    assert settings.remote.credential == TokenFile(Path("/etc/billing/pdp.token"))
    assert settings.policy.source == Path("/etc/billing/billing.yaml")
    assert settings.decision_log.sink == "file:/etc/billing/decisions.jsonl"


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings.from_mapping(COMPLETE).app.mode = "observe"  # type: ignore[misc]


def test_a_toml_file_and_a_table_of_pyproject_say_the_same(tmp_path: Path) -> None:
    lines = [
        '{0}app]\nname = "a"\nenvironment = "test"',
        '{0}policy]\nsource = "p.yaml"\nallow_unsigned = true',
        '{0}decision_log]\nsink = "stdout"',
    ]
    (tmp_path / "authz.toml").write_text("\n".join(lines).format("["))
    (tmp_path / "pyproject.toml").write_text("\n".join(lines).format("[tool.authz."))
    assert Settings.of(tmp_path / "authz.toml") == Settings.of(str(tmp_path / "pyproject.toml"))


def test_ready_settings_are_taken_as_they_are() -> None:
    settings = Settings.from_mapping(COMPLETE)
    assert Settings.of(settings) is settings


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("app/name", ..., "app.name: is required: a non-empty string"),
        ("app/name", 7, "app.name: must be a non-empty string, not 7"),
        ("app/mode", "off", 'app.mode: must be one of "enforce", "observe", not \'off\''),
        ("app/moode", "observe", "app.moode: is not a known key; accepted here: environment, mode, name, sensitive"),
        ("app/sensitive", "a", "app.sensitive: must be a non-empty list of strings, not 'a'"),
        ("app", "billing", "app: must be a table, not of type str"),
        ("tokens", {}, "tokens: is not a known key; accepted here: app, certificates, decision_log, dpop, fallback"),
        ("issuers", {}, "issuers: must be an array of tables, not of type dict"),
        ("issuers/0/audience", "billing", "issuers[0].audience: must be a non-empty list of strings"),
        ("issuers/0/audience", [], "issuers[0].audience: must be a non-empty list of strings"),
        ("issuers/0/algorithms", ["none"], "issuers[0].algorithms: has 'none'; accepted: ES256"),
        ("issuers/0/algorithms", ["HS256", "RS256"], "issuers[0].algorithms: must not mix HMAC"),
        ("issuers/0/max_lifetime", 900, "issuers[0].max_lifetime: must be a duration from 1s to 1d"),
        ("issuers/0/max_lifetime", "15", 'such as "200ms", "30s", "15m", "8h" or "1d", not \'15\''),
        ("issuers/0/leeway", "61s", "issuers[0].leeway: must be a duration from 0s to 60s"),
        ("issuers/0/max_actors", True, "issuers[0].max_actors: must be a whole number from 0 to 16, not True"),
        ("issuers/0/jwks_uri", ..., "issuers[0]: needs exactly one of jwks_uri, jwks_file, jwks"),
        ("issuers/0/jwks_file", "keys.json", "issuers[0]: needs exactly one of jwks_uri, jwks_file, jwks"),
        ("issuers/0/jwks_uri", "http://idp.example.com/", "issuers[0].jwks_uri: must be an https URL"),
        ("issuers/0/jwks_uri", "https://u:p@idp.example.com/", "and neither credentials, query nor fragment"),
        ("issuers/0/claims", "okta", "issuers[0].claims: has no preset 'okta'; accepted:"),
        ("issuers/0/claims", ["x"], "issuers[0].claims: must be the name of a preset or a table"),
        ("issuers/0/claims", {"colour": "c"}, "issuers[0].claims.colour: is not part of a claim map; accepted:"),
        ("issuers/0/claims", {"tenant": 5}, "issuers[0].claims.tenant: must be the name of a claim, or a JSON pointer"),
        ("issuers/0/claims", {"tenant": "/a~2"}, "issuers[0].claims.tenant: must be the name of a claim, or a JSON"),
        ("issuers/0/jwks", {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, "issuers[0].jwks: must hold public keys only"),
        ("issuers/0/jwks", {"keys": [{"kty": "EC", "d": "c2VjcmV0"}]}, "issuers[0].jwks: must hold public keys only"),
        ("policy/allow_unsigned", ..., "policy.allow_unsigned: must be true"),
        ("policy/allow_unsigned", "yes", "policy.allow_unsigned: must be true or false, not 'yes'"),
        ("remote/url", "ftp://pdp", "remote.url: must be an https URL"),
        ("remote/url", "http://localhost.evil.example", "remote.url: must be an https URL"),
        ("remote/credential", "s3cr3t", "remote.credential: must be a table"),
        ("remote/credential", {"token": "s3cr3t"}, 'remote.credential.token: must be { env = "NAME" } or { file'),
        ("remote/credential", {}, "remote.credential: needs exactly one of token_file"),
        ("remote/credential", {"token_file": "a", "token": {"env": "B"}}, "remote.credential: needs exactly one of"),
        ("remote/deadline", "31s", "remote.deadline: must be a duration from 1ms to 30s"),
        ("remote/deadlines", {"report:*": "31s"}, "remote.deadlines.report:*: must be a duration from 1ms to 30s"),
        ("remote/deadlines", {"re port": "1s"}, "remote.deadlines.re port: has 're port'; accepted: an action"),
        ("remote/dialect", "xacml", 'remote.dialect: must be one of "authzen", "cerbos"'),
        ("remote/show_reason", "yes", "remote.show_reason: must be true or false, not 'yes'"),
        ("fallback/degraded_header", 1, "fallback.degraded_header: must be true or false, not 1"),
        ("fallback/actions/report:*", {"mode": "deny", "on_faults": True}, "report:*.on_faults: is not a known key"),
        ("fallback/default", "allow", 'fallback.default: must be one of "deny", "degrade", "cached"'),
        ("fallback/default", "cached", 'fallback.default: must be "deny"'),
        ("fallback/actions/invoice:export", {"mode": "cached"}, "invoice:export.max_stale: is required"),
        ("fallback/actions/report:*", {"mode": "degrade"}, "report:*.rules: is required"),
        ("fallback/actions/report:*", {"mode": "deny", "rules": "x"}, "report:*.rules: is not a known key"),
        ("decision_log/sink", "syslog", 'decision_log.sink: must be "stdout", "stderr" or "file:PATH"'),
        ("decision_log/sink", ..., "decision_log.sink: is required"),
        ("handlers/static", {"public": {"reason": "x"}}, "handlers.static.public.owner: is required"),
        ("handlers/*", {"public": {"reason": "x", "owner": "y"}}, "handlers.*.public: cannot open every endpoint"),
        ("handlers/static", {"action": "a b"}, "handlers.static: action 'a b' must be words"),
        ("handlers/static", {"action": "a:b", "resource": "{x}"}, "handlers.static: resource '{x}' must be"),
        ("handlers/static", {"action": "a:b", "kinds": ["robot"]}, "handlers.static: kinds ['robot'] must be among"),
        (
            "handlers/static",
            {"action": "a:b", "public": {"reason": "x", "owner": "y"}},
            "handlers.static.action: is not",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_accepted(path: str, value: Any, said: str) -> None:
    assert any(said in problem for problem in problems(with_(path, value))), problems(with_(path, value))


@pytest.mark.parametrize("value", ["s3cr3t", {"token": "s3cr3t"}, ["s3cr3t"]])
def test_a_literal_secret_is_refused_without_being_shown(value: Any) -> None:
    assert "s3cr3t" not in "".join(problems(with_("remote/credential", value)))


def test_all_mistakes_are_reported_at_once() -> None:
    values = with_("app/mode", "off")
    values["remote"]["deadline"] = 5
    values["unknown"] = 1
    assert len(problems(values)) == 3


def test_an_issuer_named_twice_is_refused() -> None:
    values = with_("app/mode", "enforce")
    values["issuers"].append(values["issuers"][0])
    assert any("names 'https://idp.example.com/' twice" in problem for problem in problems(values))


@pytest.mark.parametrize("content", ["= nonsense", "\xff", "a = " + "9" * 9999])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "authz.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"authz\.toml: is not TOML"):
        Settings.of(path)


def test_a_file_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    path = tmp_path / "authz.toml"
    path.write_text("a = " + "[" * 9999)
    with pytest.raises(SettingsError, match=r"authz\.toml: is nested too deep"):
        Settings.of(path)


@pytest.mark.parametrize("content", ["tool = 3", "[tool]\nauthz = 3", "[tool.other]", ""])
def test_a_project_file_without_our_table_has_no_settings(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=r"app\.name: is required"):
        Settings.of(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml: cannot be read"):
        Settings.of(tmp_path / "gone.toml")


@pytest.mark.capability("C43")
def test_a_secret_shows_where_it_lies_and_never_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("s3cr3t\n")
    monkeypatch.setenv("PDP_TOKEN", "t0ps3cr3t")
    by_file = Secret.reference({"file": "token"}, tmp_path)
    by_env = Secret.reference({"env": "PDP_TOKEN"}, tmp_path)
    assert by_file is not None
    assert by_env is not None
    assert (by_file.reveal(), by_env.reveal()) == ("s3cr3t", "t0ps3cr3t")
    assert "s3cr3t" not in repr(by_file) + repr(by_env) + str(by_file)


@pytest.mark.parametrize("value", ["s3cr3t", {"env": ""}, {"env": 5}, {"vault": "x"}, {"env": "A", "file": "b"}, None])
def test_a_literal_or_unclear_secret_is_no_reference(value: object, tmp_path: Path) -> None:
    assert Secret.reference(value, tmp_path) is None


@pytest.mark.parametrize("secret", [Secret(env="NOT_SET_ANYWHERE"), Secret(file=Path("not-there")), Secret()])
def test_a_missing_secret_is_an_error_that_names_the_reference(secret: Secret) -> None:
    with pytest.raises(SecretUnavailableError, match="no secret in"):
        secret.reveal()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("200ms", 0.2), ("1.5s", 1.5), ("15m", 900), ("8h", 28800), ("1d", 86400)]
    + [
        (text, None)
        for text in ("", "5", "5 s", "-1s", "1S", "\u0661s", "1e3s", "inf", "s", "1s ", "1s\n", 5, None, True)
    ],
)
def test_a_duration_is_a_number_with_a_unit_and_nothing_else(text: object, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


def test_the_by_name_table_reads_as_the_decorators_do() -> None:
    settings = Settings.from_mapping(COMPLETE)
    (admin,) = settings.annotations_for("admin:index", "django.contrib.admin.sites:AdminSite.index")
    assert isinstance(admin, Permission)
    assert (admin.action, admin.sensitive, admin.kinds) == ("admin:use", True, frozenset({"human"}))
    assert settings.annotations_for("static") == (PublicAccess(reason="style sheets", owner="web"),)
    assert settings.annotations_for("statics", None, "other") == ()


@pytest.mark.capability("C33")
def test_the_longest_pattern_chooses_the_fallback_and_nothing_is_chosen_by_itself() -> None:
    cached = FallbackChoice(FallbackMode.CACHED, max_stale=60)
    deny = FallbackChoice(FallbackMode.DENY)
    chosen = FallbackSettings(None, {"invoice:*": deny, "invoice:export": cached, "in*": cached})
    assert chosen.choice_for("invoice:export") is cached
    assert chosen.choice_for("invoice:approve") is deny
    assert chosen.choice_for("report:run") is None
    assert msgspec.structs.replace(chosen, default=deny).choice_for("report:run") is deny
