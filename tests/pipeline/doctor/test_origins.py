"""Whose code a recipe runs: told before any of it runs, by every command that runs some."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from in_process import said
from tokenloom.pipeline.plan.origins import told_origins
from tokenloom.pipeline.plan.recipe import RecipeError, parse_recipe
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
    with pytest.raises(RecipeError) as refused:
        refuse_secrets(recipe)
    keys = [
        line.removeprefix("recipe: ").partition(": holds a credential")[0] for line in str(refused.value).splitlines()
    ]
    assert keys == [
        "storage_options.key",
        "corpus.storage_options.client_kwargs.aws_secret_key",
        "output",
        "vocabulary",
        "modalities.depth.weights",
    ]
    harmless = {**PLACES, "storage_options": {"profile": "p", "requester_pays": True}, "modalities": ["canny_edge"]}
    refuse_secrets(parse_recipe(harmless))
