"""Secrets are redacted, by key or by form; everything else is written unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from config.load import defaults
from recipes import registry
from training.secrets import redacted

X = "hunter2"
BASE64 = "aHVudGVyMg=="
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.hunter2"

# What is given -> what is written.
TEXTS = {
    f"loggers.x.headers.Authorization=Bearer {X}": "loggers.x.headers.Authorization=Bearer (secret)",
    f"Authorization: Token {X}": "Authorization: Token (secret)",
    f"Authorization: Basic {BASE64}": "Authorization: Basic (secret)",
    f"Proxy-Authorization: Own scheme, {X}": "Proxy-Authorization: (secret)",
    f"{{'Authorization': 'Basic {BASE64}', project: x}}": "{Authorization: (secret), project: x}",
    f"note=bearer {X}": "note=bearer (secret)",
    f"note=Basic {BASE64}": "note=Basic (secret)",
    f"s3://b/x?X-Goog-Signature={X}&y=1": "s3://b/x?X-Goog-Signature=(secret)&y=1",
    f"s3://b/x?X-Amz-Credential={X}&y=1": "s3://b/x?X-Amz-Credential=(secret)&y=1",
    f"url=https://b/x?a=1&token={X},'{X}&y=1": "url=https://b/x?a=1&token=(secret)&y=1",
    f"get 'https://b/x?code={X}' now": "get 'https://b/x?code=(secret)' now",
    f"https://me:{X}@host/x": "https://(secret)@host/x",
    f"https://{X}@host/x": "https://(secret)@host/x",
    f"https://me:p@w/{X}@host/x": "https://(secret)@host/x",
    f"https://hooks.slack.com/services/T0/B0/{X}": "https://hooks.slack.com/(secret)",
    f"loggers.x.auth={X}": "loggers.x.auth=(secret)",
    f"loggers.x.pw={X} {X},{X}&{X}\"{X}'{X}": "loggers.x.pw=(secret)",
    f"loggers.credentials.user={X}": "loggers.credentials.user=(secret)",
    f"{{passphrase: {X} {X}, apiKey: '{X},{X}', n: 1}}": "{passphrase: (secret), apiKey: (secret), n: 1}",
    f"loggers={{comet: {{api_key: {X}, project: x}}}}": "loggers={comet: {api_key: (secret), project: x}}",
    f"loggers.x=[[Authorization, Own {X}], [a, b]]": "loggers.x=[[Authorization, (secret)], [a, b]]",
    f'{{"pins": 2, "jwt": "{X}"': '{"pins": 2, "jwt": "(secret)"',  # truncated, so not YAML
    f'curl -H "X-Api-Key: {X} {X}" https://host': 'curl -H "X-Api-Key: (secret)" https://host',
    f"run --token {X} --lr 1": "run --token (secret) --lr 1",
    f"run --api-key='{X} {X}' --lr 1": "run --api-key='(secret)' --lr 1",
    f"a=1 password: {X}, {X}\nb=2": "a=1 password: (secret)\nb=2",
    "wrong key AKIAIOSFODNN7EXAMPLE given": "wrong key (secret) given",
    "ghp_0123456789abcdefABCD, gho_0123456789abcdefABCD": "(secret), (secret)",
    "github_pat_11AAAAAAA0_abcdefgh": "(secret)",
    "x hf_abcdefghijABCDEFGHIJ y": "x (secret) y",
    "sk-abcdefghijklmnopqrst, sk-proj-a_b-0123456789": "(secret), (secret)",
    "xoxb-0123456789-abc": "(secret)",
    "AIzaSyA-0123456789abcdefghijklmno": "(secret)",
    "glpat-abcdefghij0123456789": "(secret)",
    f"x {JWT} y": "x (secret) y",
    f"a\n-----BEGIN RSA PRIVATE KEY-----\n{X}\n-----END RSA PRIVATE KEY-----\nb": "a\n(secret)\nb",
}
KEYS = (
    "api_key apiKey apikey key ssh_keys Authorization pwd pw pass passphrase auth HF_TOKEN sig.signature jwt pin sas "
    "dsn session_id sessionid private_key_id AWSAccessKeyId secret_value token_value webhook webhook_url presigned_url "
    "db-password dbPassword X-Auth-Token token_2 api_key_old Set-Cookie client_secret_json auth_header"
).split()
NO_KEYS = (
    "monkey turkeys keyboard keypoints key_size author keys bypass compass passes spin pinned pin_memory "
    "max_tokens tokens tokenizer num_keys token_count tokens_per_second pad_token_id token_url input_key target_key "
    "experiment_key signal design cooking pass_rate authors unsigned_bytes jwts_seen seed"
).split()
NO_SECRETS = [
    "train_dataset.path=/data/tokenizer",
    "callbacks.x={max_tokens: 5, tokens: 1e3, auth: false, token: null}",
    "loggers.x=[{name: monkey, value: 1}]",
    "a: 1, token: true, next: 1",
    "failed: keyboard: interrupted at 12:30",
    "http://127.0.0.1:5000/a@b",
    "s3://bucket/folder/x@2",
    "sk-learn-style names, hf_transfer, Basic blocks, AKIA",
    "commit 2f0394717ea7b1d1d9ab5ecb43ad9a6d5f0e0d9c",
]


@pytest.mark.parametrize("text", TEXTS)
def test_secrets_inside_a_text(text: str) -> None:
    assert redacted(text) == TEXTS[text]
    assert redacted({"init_kwargs": [text]}) == {"init_kwargs": [TEXTS[text]]}
    assert redacted(TEXTS[text]) == TEXTS[text], "redaction must be idempotent"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [X, f"{X} {X}, '{X}&", 1234567, [X], {"a": X}])
def test_secret_keys(key: str, value: Any) -> None:
    if not (isinstance(value, int) and key.endswith("keys")):  # a count, not a secret
        assert redacted({"a": {key: value}, "b": "c"}) == {"a": {key: "(secret)"}, "b": "c"}
    if isinstance(value, str):
        assert redacted(f"x.{key}={value}") == f"x.{key}=(secret)"


@pytest.mark.parametrize("key", NO_KEYS)
def test_keys_that_are_not_secrets(key: str) -> None:
    for value in (5, "5", True, "true", None):
        assert redacted({key: value}) == {key: value} and redacted(f"a.{key}={value}") == f"a.{key}={value}"


@pytest.mark.parametrize("text", NO_SECRETS)
def test_texts_without_secrets(text: str) -> None:
    assert redacted(text) == text


def test_pairs_and_named_values() -> None:
    assert redacted([["Authorization", f"Own {X}"], ("token", X), ("lr", "1")]) == [
        ["Authorization", "(secret)"],
        ("token", "(secret)"),
        ("lr", "1"),
    ]
    assert redacted(["run", "--token", X, "--lr", "1"]) == ["run", "--token", "(secret)", "--lr", "1"]
    assert redacted([{"name": "API_KEY", "value": X}, {"key": "Cookie", "value": X}, {"name": "a", "value": 1}]) == [
        {"name": "API_KEY", "value": "(secret)"},
        {"key": "Cookie", "value": "(secret)"},
        {"name": "a", "value": 1},
    ]


def test_none_of_our_keys_is_redacted() -> None:
    """The schema's keys with their defaults, and each argument of each class that a YAML may name."""
    assert redacted(defaults()) == defaults()
    for kind in registry.PACKAGES:
        for name in registry.names(kind):
            for key in registry.signature(kind, name):
                is_secret = key.endswith(("api_key", "api_token"))
                assert (redacted({key: "x"}) != {key: "x"}) == is_secret, f"{kind} {name}: {key}"
    for file in (Path(__file__).parent.parent.parent / "recipes").glob("*.yaml"):
        assert redacted(content := yaml.safe_load(file.read_text())) == content
