"""Secrets are masked wherever they stand, and what is no secret stays readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import redact

CANARY = "c4n4ry-0f-the-c0al-mine"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c4n4ryc4n4ryc4n4ry"


@pytest.mark.parametrize(
    "text",
    [
        f"password={CANARY}",
        f"'password': '{CANARY}'",
        f'{{"new_password": "{CANARY} with spaces"}}',
        f"Authorization: Bearer {CANARY}",
        f"authorization: Basic {CANARY}",
        f"token {JWT} was sent",
        f"api_key={CANARY}&x=1",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}",
    ],
)
def test_secrets_in_text_are_masked(text: str) -> None:
    masked = redact.text(text)
    assert "c4n4ry" not in masked
    assert redact.MASK in masked


@pytest.mark.parametrize("text", ["plc1: started, running", "the pass was closed", "eth0 has 192.168.1.5/24", ""])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact.text(text) == text


@pytest.mark.parametrize(
    "key",
    ["password", "old_password", "Authorization", "access_token", "JWT_SECRET_KEY", "pepper", "api-key", "Cookie"],
)
def test_values_of_secret_keys_are_masked_at_any_depth(key: str) -> None:
    tree = {"a": [{"b": {key: CANARY, "kept": 1}}]}
    assert redact.tree(tree) == {"a": [{"b": {key: redact.MASK, "kept": 1}}]}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(plain, st.sampled_from(["password", "token", "secret"]))
def test_no_tree_leaks_what_stands_under_a_secret_key(tree: object, key: str) -> None:
    assert CANARY not in repr(redact.tree({"outer": [tree, {key: CANARY}], key: [CANARY]}))
