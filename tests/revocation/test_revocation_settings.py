"""The table `[revocations]`: what may be written, and what is said when it cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from authz_middleware.errors import Problem
from authz_middleware.settings import Secret
from authz_middleware.settings.revocations import OnUnavailable, RedisSettings, RevocationSettings, read_revocations
from authz_middleware.settings.section import Section

DENY = {"on_unavailable": {"default": "deny"}}
REDIS = {**DENY, "store": "redis", "redis": {"url": "rediss://cache.example.com"}}


def read(table: dict[str, Any] | None) -> tuple[RevocationSettings | None, dict[str, str]]:
    problems: list[Problem] = []
    root = Section({} if table is None else {"revocations": table}, "", problems, Path("/etc/billing"))
    settings = read_revocations(root)
    root.done()
    return settings, {problem.where.removeprefix("revocations").lstrip("."): problem.what for problem in problems}


def good(table: dict[str, Any]) -> RevocationSettings:
    settings, problems = read(table)
    assert problems == {}
    assert settings is not None
    return settings


def test_without_the_table_there_are_no_revocations() -> None:
    assert read(None) == (None, {})


def test_a_file_is_taken_relative_to_the_settings() -> None:
    assert good({**DENY, "store": "file:run/revocations.db"}).file == Path("/etc/billing/run/revocations.db")


def test_memory_has_to_be_said_twice() -> None:
    settings = good({**DENY, "store": "memory", "per_process": True})
    assert (settings.file, settings.redis) == (None, None)
    _, problems = read({**DENY, "store": "memory"})
    assert "known to one worker" in problems["per_process"]
    assert "per_process" in read({**DENY, "store": "file:x", "per_process": True})[1]


def test_a_redis_server_is_named_by_its_url_and_its_secret_by_reference() -> None:
    redis = {
        "url": "rediss://cache.example.com:6380/3",
        "username": "billing",
        "password": {"env": "REDIS_PASSWORD"},
        "ca_file": "ca.pem",
        "prefix": "billing:revocations",
    }
    settings = good({**REDIS, "redis": redis, "max_lag": "2s"})
    assert settings.max_lag == 2.0
    assert settings.redis == RedisSettings(
        "cache.example.com",
        6380,
        3,
        tls=True,
        username="billing",
        password=Secret(env="REDIS_PASSWORD"),
        ca_file=Path("/etc/billing/ca.pem"),
        prefix="billing:revocations",
    )


@pytest.mark.parametrize("url", ["redis://127.0.0.1", "redis://localhost:7000/1", "redis://[::1]"])
def test_without_tls_a_server_is_on_loopback(url: str) -> None:
    redis = good({**REDIS, "redis": {"url": url}}).redis
    assert redis is not None
    assert redis.tls is False


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache.example.com",
        "redis://127.0.0.1.example.com",
        "rediss://user:hunter2@cache.example.com",
        "rediss://:hunter2@cache.example.com",
        "rediss://cache.example.com?password=hunter2",
        "rediss://cache.example.com/0#hunter2",
        "rediss://cache.example.com/hunter2",
        "rediss://cache.example.com:hunter2",
        "rediss://",
        "https://cache.example.com",
        "cache.example.com:hunter2",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_and_not_shown(url: str) -> None:
    _, problems = read({**REDIS, "redis": {"url": url}})
    assert "redis.url" in problems
    assert "hunter2" not in str(problems)


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ({**DENY}, "store"),
        ({**DENY, "store": "sqlite:x"}, "store"),
        ({**DENY, "store": "file:"}, "store"),
        ({**DENY, "store": "redis"}, "redis"),
        ({**REDIS, "store": "file:x"}, "redis"),
        ({**DENY, "store": "file:x", "max_lag": "5s"}, "max_lag"),
        ({**REDIS, "max_lag": "1ms"}, "max_lag"),
        ({**REDIS, "redis": {"url": "rediss://h", "username": "u"}}, "redis.password"),
        ({**REDIS, "redis": {"url": "rediss://h", "password": "hunter2"}}, "redis.password"),
        ({**REDIS, "redis": {"url": "rediss://h", "prefix": "a b"}}, "redis.prefix"),
        ({**REDIS, "redis": {"url": "rediss://h", "tls": False}}, "redis.tls"),
        ({**REDIS, "unknown": 1}, "unknown"),
    ],
)
def test_a_mistake_is_named_with_its_place(table: dict[str, Any], place: str) -> None:
    _, problems = read(table)
    assert set(problems) == {place}
    assert "hunter2" not in str(problems)


# ---- what happens while they cannot be read


@pytest.mark.capability("C18")
@pytest.mark.promise("P2")
@pytest.mark.parametrize("chosen", [None, {}, {"default": "allow"}, {"default": True}, {"actions": {}}])
def test_what_happens_in_an_outage_has_to_be_chosen(chosen: Any) -> None:
    table = {"store": "file:x"} if chosen is None else {"store": "file:x", "on_unavailable": chosen}
    _, problems = read(table)
    assert '"deny"' in problems["on_unavailable.default"]


def test_the_choice_is_that_of_the_longest_pattern_that_covers_the_action() -> None:
    choice = {
        "default": {"mode": "last_known", "max_age": "1m"},
        "actions": {
            "invoice:*": {"mode": "last_known", "max_age": "5m"},
            "invoice:pay": {"mode": "deny"},
        },
    }
    chosen = good({"store": "file:x", "on_unavailable": choice}).on_unavailable
    assert chosen.choice_for("report:read") == OnUnavailable("last_known", 60.0)
    assert chosen.choice_for("invoice:read") == OnUnavailable("last_known", 300.0)
    assert chosen.choice_for("invoice:pay") == OnUnavailable("deny")


@pytest.mark.parametrize(
    ("choice", "place"),
    [
        ({"default": {"mode": "last_known"}}, "default.max_age"),
        ({"default": {"mode": "last_known", "max_age": "2d"}}, "default.max_age"),
        ({"default": {"mode": "allow"}}, "default.mode"),
        ({"default": "deny", "actions": {"invoice:read": {"mode": "allow"}}}, "actions.invoice:read.mode"),
        ({"default": "deny", "actions": {"Invoice read": {"mode": "deny"}}}, "actions.Invoice read"),
        ({"default": "deny", "actions": {"a:b": {"mode": "deny", "max_age": "5m"}}}, "actions.a:b.max_age"),
        ({"default": "deny", "else": 1}, "else"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_named(choice: dict[str, Any], place: str) -> None:
    _, problems = read({"store": "file:x", "on_unavailable": choice})
    assert f"on_unavailable.{place}" in problems
