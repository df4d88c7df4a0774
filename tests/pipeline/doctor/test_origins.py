"""Whose code a recipe runs: told before any of it runs, by every command that runs some."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import said
from tokenloom.pipeline.plan.origins import told_origins
from tokenloom.pipeline.plan.recipe import Recipe, RecipeError, parse_recipe
from tokenloom.pipeline.plan.secrets import refuse_secrets

PLACES = {"corpus": "corpus", "output": "out"}


@pytest.mark.parametrize("command", ["run", "plan", "doctor"])
def test_the_origin_is_told_before_the_code_runs(command, tmp_path, monkeypatch):
    """Which here prints, and then fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"mine_{command}.py").write_text("print('it runs'); 1 / 0\n")
    recipe = {**PLACES, "modalities": {"mine": {"labeler": f"mine_{command}:Mine"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    printed = said(command, "mine.yaml", code=2)
    assert printed.index(f"mine_{command}:Mine: code of {tmp_path}") < printed.index("it runs")


def test_what_is_tokenlooms_own_is_not_told_and_others_are(tmp_path: Path):
    modalities = {
        "canny_edge": {},
        "yours": {"labeler": "yaml:Loader", "tokenizer": "odd_labelers:Nothing"},
        "gone": {"labeler": "nowhere_at_all:Gone"},
    }
    yours, odd = told_origins(parse_recipe({**PLACES, "modalities": modalities}), tmp_path)
    assert yours.startswith("yaml:Loader: code of PyYAML ")
    assert odd.startswith("odd_labelers:Nothing: code of /")
    assert odd.endswith("/odd_labelers.py")


def test_credentials_in_a_recipe_are_refused_by_their_keys():
    recipe = parse_recipe(
        {
            "corpus": {"url": "s3://b/c", "storage_options": {"anon": True, "client_kwargs": {"aws_secret_key": "x"}}},
            "output": "https://u:p@host/out",
            "storage_options": {"key": "x", "endpoint_url": "http://e", "token": "anon"},
            "vocabulary": "https://host/v?X-Amz-Signature=1",
            "modalities": {"depth": {"weights": "https://host/w?token=1"}, "canny_edge": {}},
        }
    )
    assert refused(recipe) == {
        "storage_options.key",
        "corpus.storage_options.client_kwargs.aws_secret_key",
        "output",
        "vocabulary",
        "modalities.depth.weights",
    }
    config = {
        "retries": {"mode": "adaptive"},
        "request_checksum_calculation": "when_required",
        "proxies": {"https": "p"},
    }
    options = {
        "profile": "p",
        "requester_pays": "project",
        "config_kwargs": config,
        "client_kwargs": {"verify": "ca.pem"},
    }
    queries = {"corpus": "https://host/a.tar?download=true", "vocabulary": "https://host/v.json?ref=main&version=1.2"}
    harmless = {**PLACES, **queries, "storage_options": options, "modalities": ["canny_edge"]}
    assert refused(parse_recipe(harmless)) == set()


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ({"connection_string": "AccountName=a;AccountKey=x"}, "storage_options.connection_string"),
        ({"client_kwargs": {"headers": {"Authorization": "Bearer x"}}}, "storage_options.client_kwargs.headers"),
        ({"client_kwargs": {"auth": ["u", "x"]}}, "storage_options.client_kwargs.auth"),
        ({"pin": "x", "verify": False, "timeout": 5.0}, "storage_options.pin"),
        ({"token": {"private_key": "x"}}, "storage_options.token"),
        ({"proxy": "http://u:x@p"}, "storage_options.proxy"),
    ],
)
def test_an_option_that_is_not_known_is_taken_for_a_credential(part, key):
    (found,) = refused(parse_recipe({**PLACES, "storage_options": part, "modalities": ["canny_edge"]}))
    assert found.startswith(key)


def test_what_only_the_file_holds_is_refused_too():
    """Which goes along whole, whatever is overridden."""
    recipe = parse_recipe({**PLACES, "modalities": ["canny_edge"]})
    file = {"output": "s3://a:x@b/out", "modalities": {"mine": {"params": {"api_key": "x", "key": "caption"}}}}
    assert refused(recipe, file) == {"output", "modalities.mine.params.api_key"}


def refused(recipe: Recipe, file: Mapping[str, Any] | None = None) -> set[str]:
    """The keys that hold credentials."""
    try:
        refuse_secrets(recipe, file or {})
    except RecipeError as error:
        return {line.removeprefix("recipe: ").partition(": holds a cred")[0] for line in str(error).splitlines()}
    return set()
