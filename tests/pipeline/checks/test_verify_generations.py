"""Verify over time: of what has been superseded the bits are looked at, of what takes places, or ought to, all."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from small_dataset import SmallDataset, made_anew, path_of, pending, repair_palette, write_dataset
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.cli import app
from tokenloom.pipeline.dataset.layout import label_path, manifest_path, token_path
from tokenloom.pipeline.dataset.manifest import publish
from tokenloom.pipeline.storage.store import Store
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> SmallDataset:
    return write_dataset(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def small(pristine, tmp_path) -> SmallDataset:
    """A copy to go on from."""
    shutil.copytree(pristine.store.url, tmp_path / "dataset")
    return replace(pristine, store=Store(tmp_path / "dataset"))


@pytest.fixture
def replaced(small) -> SmallDataset:
    """The dataset after dinov2 has been made anew."""
    renewed = made_anew(small, "dinov2", version=2)
    publish(small.store, lambda now: renewed.manifest)
    return renewed


def findings(small: SmallDataset, deep: bool = False) -> set[tuple[str, str]]:
    return {(fault.problem, fault.object) for fault in verify(small.store, deep).faults}


def damage(small: SmallDataset, path: str) -> None:
    file = path_of(small, path)
    file.write_bytes(file.read_bytes()[:-1])


# --- generations ------------------------------------------------------------------------------------------------------


def test_a_superseded_generation_is_no_fault_and_its_bits_are_looked_at(small, replaced):
    """It may be deleted, as `gc` does it; while it is there, whoever goes back to it relies on it."""
    report = verify(small.store, deep=True)
    assert report.faults == []
    assert (report.samples, report.shards) == (16, 24)
    path_of(small, small.token_path("dinov2", small.units[1])).unlink()
    assert findings(small) == set()
    paths = {made.token_path("dinov2", small.units[0]) for made in (small, replaced)}
    for path in paths:
        damage(small, path)
    assert findings(small) == {("damaged", path) for path in paths}


def test_a_damaged_tokenizer_of_a_superseded_generation_is_found(small, replaced):
    tokenizer = small.manifest.modalities["dinov2"].tokenizer_digest
    publish(
        small.store, lambda now: replace(small.manifest, modalities={"caption": small.manifest.modalities["caption"]})
    )
    assert findings(small) == set()
    damage(small, f"tokenizers/{tokenizer}/config.json")
    assert ("damaged", f"tokenizers/{tokenizer}/config.json") in findings(small)


def test_a_damaged_revision_that_was_superseded_is_found(small):
    unit = small.units[0]
    repair_palette(small, unit)
    assert findings(small) == set()
    damage(small, small.token_path("color_palette", unit))
    assert findings(small) == {("damaged", small.token_path("color_palette", unit))}


def test_a_generation_that_no_manifest_names_tells_of_a_lost_manifest(small):
    renewed = made_anew(small, "dinov2", version=2)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("missing", manifest_path(2))
    assert f"no manifest names dinov2/tokens-{renewed.manifest.modalities['dinov2'].generation}, and" in fault.what
    assert "run the recipe" in fault.way_out


def test_a_shard_of_a_superseded_generation_does_not_pass_for_the_new_one(small, replaced):
    unit = small.units[2]
    path = replaced.token_path("dinov2", unit)
    path_of(small, path).write_bytes(path_of(small, small.token_path("dinov2", unit)).read_bytes())
    assert findings(small) == {("misplaced", path)}


def test_a_tokenizer_that_only_older_manifests_name_is_no_fault(small):
    card = small.manifest.modalities["canny_edge"]
    publish(small.store, lambda now: replace(small.manifest, modalities={"canny_edge": card}))
    assert findings(small) == set()


# --- manifests --------------------------------------------------------------------------------------------------------


def test_a_damaged_older_manifest_is_found(small, replaced):
    file = path_of(small, manifest_path(1))
    file.write_bytes(file.read_bytes().replace(b"dinov2", b"dinov3"))
    (fault,) = [fault for fault in verify(small.store).faults if fault.object == manifest_path(1)]
    assert fault.problem == "damaged"
    assert "readers take the last one" in fault.way_out


@pytest.mark.parametrize("kept", [(1, 2, 4), (2, 3, 4)])
def test_a_missing_number_among_the_manifests_is_found(small, kept):
    for seed in range(1, 4):
        publish(small.store, lambda now, seed=seed: replace(small.manifest, seed=seed))
    assert findings(small) == set()
    (gone,) = {1, 2, 3, 4} - set(kept)
    small.store.delete(manifest_path(gone))
    assert findings(small) == {("missing", manifest_path(gone))}


def test_without_the_last_manifest_the_one_before_holds(small, replaced):
    small.store.delete(manifest_path(2))
    assert findings(small) == {("missing", manifest_path(2))}


def test_a_damaged_last_manifest_is_all_that_is_said(small, replaced):
    file = path_of(small, manifest_path(2))
    file.write_bytes(file.read_bytes().replace(b"dinov2", b"dinov3"))
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("damaged", manifest_path(2))
    assert "nothing can be checked without it" in fault.way_out


# --- stale modalities -------------------------------------------------------------------------------------------------


def made_from_captions(small: SmallDataset) -> SmallDataset:
    """The dataset whose edges were made from its captions, which were made anew since."""
    captions = small.manifest.modalities["caption"].labels_generation
    edges = made_anew(small, "canny_edge", requires={"caption": captions})
    return made_anew(edges, "caption", version=2)


def test_what_was_made_from_labels_that_were_replaced_is_stale(small):
    publish(small.store, lambda now: made_from_captions(small).manifest)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("stale", "canny_edge")
    assert fault.what == "it was made from caption as it was before"
    assert "--replace canny_edge" in fault.way_out


def test_what_was_read_from_the_corpus_otherwise_is_stale(small):
    corpus = replace(small.manifest.corpus, reading={"decode": "rgb"})
    publish(small.store, lambda now: replace(small.manifest, corpus=corpus))
    faults = verify(small.store).faults
    assert {(fault.problem, fault.object) for fault in faults} == {
        ("stale", name) for name in small.manifest.modalities
    }
    assert {fault.what for fault in faults} == {'the corpus was read otherwise: corpus.decode: null -> "rgb"'}


def test_a_vocabulary_that_the_texts_have_no_longer_is_stale(small):
    tokens = small.manifest.modalities["color_palette"].tokens
    assert tokens is not None
    assert tokens.vocabulary is not None
    other = replace(tokens, vocabulary=replace(tokens.vocabulary, digest="0" * 64))
    publish(small.store, lambda now: made_anew(small, "color_palette", tokens=other).manifest)
    found = {(fault.problem, fault.object, fault.what) for fault in verify(small.store).faults}
    what = f"its text vocabulary isn't that of the other modalities ({tokens.vocabulary.digest[:8]}...)"
    assert ("stale", "color_palette", what) in found
    assert {problem for problem, _, _ in found} == {"stale", "missing"}


# --- what is being made anew ------------------------------------------------------------------------------------------


def test_a_pending_modality_is_unfinished_while_the_current_one_stays_checked(small):
    renewed = made_anew(small, "dinov2", units=2, version=2)
    pending(small, renewed, "dinov2")
    assert findings(small) == {("unfinished", "dinov2 (new)")}
    gone, broken = (small.token_path("dinov2", unit) for unit in small.units[:2])
    path_of(small, gone).unlink()
    damage(small, broken)
    damage(small, renewed.token_path("dinov2", small.units[1]))
    assert findings(small) == {
        ("unfinished", "dinov2 (new)"),
        ("missing", gone),
        ("damaged", broken),
        ("damaged", renewed.token_path("dinov2", small.units[1])),
    }


def test_shards_that_the_pending_modality_shares_stay_checked(small):
    """As while labels are kept beside tokens that are there."""
    renewed = made_anew(small, "dinov2", units=1, keeps_labels=True)
    pending(small, renewed, "dinov2")
    assert renewed.token_path("dinov2", small.units[3]) == small.token_path("dinov2", small.units[3])
    assert findings(small) == {("unfinished", "dinov2 (new)")}
    path_of(small, small.token_path("dinov2", small.units[3])).unlink()
    damage(small, small.token_path("dinov2", small.units[2]))
    damage(small, renewed.label_path("dinov2", small.units[0]))
    assert findings(small) == {
        ("unfinished", "dinov2 (new)"),
        ("missing", small.token_path("dinov2", small.units[3])),
        ("damaged", small.token_path("dinov2", small.units[2])),
        ("damaged", renewed.label_path("dinov2", small.units[0])),
    }


def test_a_modality_whose_tokenizer_is_not_fitted_is_unfinished(small):
    card = small.manifest.modalities["dinov2"]
    assert card.tokens is not None
    unfitted = replace(card, version=2, tokens=replace(card.tokens, spec=None, files={}))
    publish(
        small.store, lambda now: replace(small.manifest, modalities={**small.manifest.modalities, "depth": unfitted})
    )
    assert findings(small) == {("unfinished", "depth")}


# --- revisions --------------------------------------------------------------------------------------------------------


def revised(small: SmallDataset, revision: int) -> tuple[str, str]:
    """Where the palettes of the first unit lie: labels and tokens."""
    card, unit = small.manifest.modalities["color_palette"], small.units[0]
    return (
        label_path("color_palette", card.labels_generation, unit, revision),
        token_path("color_palette", card.tokens_generation, unit, revision),
    )


def test_of_a_unit_that_was_tried_again_the_highest_complete_revision_counts(small):
    repair_palette(small, small.units[0])
    report = verify(small.store, deep=True)
    assert report.faults == []
    assert report.shards == 24
    for path in revised(small, 0):  # as `gc` does it
        path_of(small, path).unlink()
    assert findings(small) == set()
    for path in revised(small, 1):
        damage(small, path)
    assert findings(small) == {("damaged", path) for path in revised(small, 1)}


def test_a_revision_that_is_not_complete_does_not_count(small):
    repair_palette(small, small.units[0])
    path_of(small, revised(small, 1)[1]).unlink()
    assert findings(small) == set()
    for path in (revised(small, 1)[0], revised(small, 0)[0]):
        damage(small, path)
    assert findings(small) == {("damaged", revised(small, number)[0]) for number in (0, 1)}


@pytest.mark.parametrize(("labels", "tokens", "lacking"), [(1, 0, "tokens"), (0, 1, "tokens"), (0, None, "tokens"),
                                                           (None, 1, "labels")])  # fmt: skip
def test_labels_and_tokens_of_different_revisions_make_no_unit(small, labels, tokens, lacking):
    """What a run is to make next is missing: the tokens of the labels that are there, or all of it."""
    repair_palette(small, small.units[0])
    for revision in (0, 1):
        for path, kept in zip(revised(small, revision), (labels, tokens), strict=True):
            if revision != kept:
                path_of(small, path).unlink()
    missing = {revised(small, labels or 0)[1]} | ({revised(small, 0)[0]} if lacking == "labels" else set())
    assert findings(small) == {("missing", path) for path in missing}


def test_the_ledger_of_an_older_revision_is_not_looked_at(small):
    unit = small.units[0]
    old = [small.ledger_path("color_palette", unit, labels) for labels in (False, True)]
    repair_palette(small, unit)
    damage(small, old[0])
    path_of(small, old[1]).unlink()
    assert findings(small) == set()


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_stale_and_what_is_pending(small):
    renewed = made_from_captions(small)
    publish(small.store, lambda now: renewed.manifest)
    pending(renewed, made_anew(renewed, "dinov2", units=1, version=2), "dinov2")
    result = CliRunner().invoke(app, ["verify", small.store.url], catch_exceptions=False)
    assert result.exit_code == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    stale = lines.index("stale: modalities that aren't made from what the dataset holds now")
    assert lines[stale + 1 : stale + 3] == ["canny_edge", "it was made from caption as it was before"]
    assert "dinov2 (new)" in lines
    assert lines[-1] == "2 findings: 1 stale, 1 unfinished"
