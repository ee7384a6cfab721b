"""Remove secrets from everything that is written: find them by their keys and by their format."""

import math
import re
from typing import Any

import yaml

HIDDEN = "(secret)"

# Keys are normalized to lower-case words joined by _: `HF_TOKEN`, `X-Api-Key` and `awsKeyId` become hf_token, x_api_key
# and aws_key_id. Alternatives after ^ or _ match whole words (not monkey, bypass, spin); the others match word endings.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET = re.compile(
    r"""(?:
    (?: ^ | _ )(?: key(?! s ) | pin | pass | pw | sas | dsn | jwt | otp | sig | auth | bearer | cred | webhook
                 | (?: key | access | secret | session | credential )_id | (?: pre )?signed(?= _ur[il] ) )
    | password | passwd | passphrase | passcode | pwd | token | secret | credential | signature | cookie
    | authorization | authentication | sess(?: ion )?id
    | (?: api | access | secret | private | auth | ssh | account | master )_?key
    )
    (?P<plural> s? )
    (?: _(?: value | string | str | text | header | json | pem | hex | hash | base | b | ur[il] | old | new | \d+ ))*
    $""",
    re.VERBOSE,
)
# Keys, tokens and passes that are not secrets, and the addresses that issue tokens.
_OTHER = re.compile(
    r"(?:^|_)(?:(?:batch|cache|dict|experiment|foreign|group|image|index|input|label|metric|object|partition|primary|"
    r"public|sort|target)_key|(?:pad|bos|eos|unk|mask|cls|sep)_tokens?|(?:forward|backward|low|high)_pass|"
    r"(?:auth|authorization|authentication|token)_ur[il])$"
)
_COUNTED = re.compile(r"(?:max|min|num|n|total|count|mean)_")
_SWITCH = re.compile(r"(?:true|false|null|none|yes|no|on|off|~)?", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?", re.IGNORECASE)
_SCHEME = re.compile(r"(?:bearer|basic|digest|token|negotiate|apikey)\s+(?=\S)", re.IGNORECASE)

# Secrets recognized by their format alone; a pattern's first group, if any, is kept.
_FORMATS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END [^-]*-----|\Z)",
        r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{12,}",  # AWS
        r"(?<![A-Za-z0-9])(?:gh[a-z]_[A-Za-z0-9]{10,}|github_pat_\w{10,})",
        r"(?<![A-Za-z0-9])gl[a-z]{2,4}-[\w-]{16,}",  # GitLab
        r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}",  # Hugging Face
        r"(?<![A-Za-z0-9])[srp]k[-_](?:(?=[\w-]*\d)[\w-]{16,}|[A-Za-z0-9]{20,})",  # OpenAI, Anthropic, Stripe
        r"(?<![A-Za-z0-9])xox[a-z]-[\w-]{8,}",  # Slack
        r"(?<![A-Za-z0-9])(?:AIza|ya29\.)[\w-]{16,}",  # Google
        r"(?<![A-Za-z0-9])eyJ[\w-]{4,}\.[\w-]{4,}(?:\.[\w-]*)?",  # JSON web tokens
        r"(https?://(?:hooks\.slack\.com|discord(?:app)?\.com/api/webhooks)/)\S+",
        # The user of an address: with a password up to the last @ of all, else up to the last @ before the path.
        r"(?<=://)(?:[^\s/:@]*:(?!\s|\d{1,5}(?:[^\w@]|\Z))[^\n]+|[^\s/?#]+)(?=@)",
        r"(\b[Bb](?i:earer)\s+)(?!\(secret\))[^\s\"']+",
        r"(\bBasic\s+)(?=\S*[A-Z0-9=])(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)"
        r"(?![\w+/=])",
    )
]
_KEY = re.compile(r"(?P<before>--|[?&;\"']|)(?<![\w.])(?P<key>[A-Za-z][\w.-]*)(?P<sets>[\"']?\s*[:=]\s*|\s+)")
_SHELL_WORD = re.compile(r"(?:\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\s\"']|[\"'])*?(?=\s|\Z)")
_QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:''|\\.|[^'\\])*'")
_PLAIN = re.compile(r"(?:true|false|null|none|[-+\d.]+)(?=\s*(?:\Z|[,;&}\])\n]|\s[\w.-]+[:=]))", re.IGNORECASE)


def redacted(value: Any) -> Any:
    """Return a copy with the values of secret keys, and anything in text that looks like a secret, replaced.

    `value` may be dictionaries, lists and tuples of anything. Text may be `key=value`, YAML in brackets, a header, a
    command or an address; a secret in it without a clear end extends to the end of its line.
    """
    if isinstance(value, dict):
        # {name: API_KEY, value: ...}, as environments are written
        named = [key for key in ("name", "key") if "value" in value and _is_secret(value.get(key), value["value"])]
        hidden = [key for key, item in value.items() if key not in named and _is_secret(key, item)]
        hidden += ["value"] if named else []
        return {redacted(key): HIDDEN if key in hidden else redacted(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_in_list(value))
    if isinstance(value, list):
        return _in_list(value)
    return _in_text(value) if isinstance(value, str) else value


def _in_list(values: list | tuple) -> list[Any]:
    """Hide the value after a secret's name, as in [Authorization, ...] and [--token, ...]."""
    names = [None, *values]
    return [
        HIDDEN
        if isinstance(name, str) and (len(values) == 2 or name.startswith("--")) and _is_secret(name, value)
        else redacted(value)
        for name, value in zip(names, values, strict=False)
    ]


def _is_secret(key: Any, value: Any) -> bool:
    """Whether a key, or a part of it (credentials.user), names a secret; empty values, switches and counts are none."""
    if not isinstance(key, str) or value is None or isinstance(value, bool) or value in ("", [], {}, ()):
        return False
    text = str(value).strip() if isinstance(value, str | int | float) else HIDDEN
    for part in key.split("."):
        words = "_".join(_WORD.findall(part)).lower()
        secret = _SECRET.search(words)
        if secret and not _OTHER.search(words):
            is_count = (secret["plural"] or _COUNTED.match(words)) and _NUMBER.fullmatch(text)
            return not is_count and not _SWITCH.fullmatch(text)
    return False


def _in_text(text: str) -> str:
    """Return a text without its secrets."""
    assignment = re.fullmatch(r"([A-Za-z][\w.-]*=)?(.*)", text, re.DOTALL)
    assert assignment is not None
    key, value = assignment[1] or "", assignment[2]
    if _is_secret(key, value):
        return key + _hidden(value)
    if value.strip()[:1] in ("{", "["):
        try:
            content = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            pass  # not YAML
        else:
            if (clean := redacted(content)) == content:
                return text
            return key + yaml.safe_dump(clean, default_flow_style=True, width=math.inf, sort_keys=False).strip()
    for pattern in _FORMATS:
        text = pattern.sub(rf"\1{HIDDEN}" if pattern.groups else HIDDEN, text)
    return _in_line(text)


def _in_line(text: str) -> str:
    """Hide the values of secret keys in running text: `key: x`, `key=x`, `?key=x` and `--key x`."""
    done, at = "", 0
    while key := _KEY.search(text, at):
        start, end = key.end(), _end(text, key)
        by_space = key["sets"].isspace() and key["before"] != "--"
        is_code = key["before"] in ("?", "&") and key["key"].lower() == "code"  # of an OAuth redirect
        if not by_space and (is_code or _is_secret(key["key"], text[start:end])):
            done, at = done + text[at:start] + _hidden(text[start:end]), end
        else:
            done, at = done + text[at : key.end("key")], key.end("key")
    return done + text[at:]


def _end(text: str, key: re.Match[str]) -> int:
    """Return the position where a key's value ends in running text."""
    start, before = key.end(), key["before"]
    if before == "--":
        value = _SHELL_WORD.match(text, start)
    elif before in ("?", "&", ";") and key["sets"] == "=":
        quotes = "".join(quote for quote in "\"'" if quote in text[:start])  # they may end the address
        value = re.compile(rf"[^&#\s{quotes}]*").match(text, start)
    elif before in ('"', "'") and key["sets"][0] != before:  # "Authorization: ..." is quoted as a whole
        value = re.compile(rf"[^{before}]*").match(text, start)
    else:
        value = _QUOTED.match(text, start) or _PLAIN.match(text, start) or re.compile(r".*").match(text, start)
    return value.end() if value else len(text)


def _hidden(value: str) -> str:
    """Return a secret's replacement, keeping quotes around it and the scheme of an Authorization header."""
    quote = value[0] if _QUOTED.fullmatch(value) else ""
    scheme = _SCHEME.match(value.removeprefix(quote))
    return f"{quote}{scheme[0] if scheme else ''}{HIDDEN}{quote}"
