"""Corpora that grow, are mended, shrink and move between runs: only the new is made, and nothing changes unasked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from corpus_files import tar_bytes
from in_process import said, weave, without_ray
from tokenloom.pipeline.checks.garbage import remove_garbage
from tokenloom.pipeline.checks.status import read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.commands.console import plain_console
from tokenloom.pipeline.commands.dataset import status
from tokenloom.pipeline.commands.growth import print_growth
from tokenloom.pipeline.commands.run import run as command
from tokenloom.pipeline.corpus.corpus import CorpusSettings
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError, require_manifest
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe, RecipeError, parse_recipe
from tokenloom.pipeline.retry import retry
from tokenloom.pipeline.storage.store import Store
from weaving import digests, labels_of, odd, recipe, shards_of

pytestmark = pytest.mark.slow
MORE: dict[str, Any] = {"units": {"samples": 3}, "views": {"size": 32}, "fit": {"units": 2}}
CODES = {"labeler": "odd_labelers:Grid", "keep": "both", "tokenizer": {"name": "codebook", "params": {"size": 4}}}
COLOUR = {"mean_colour": odd("MeanColour")}
BOTH = {**COLOUR, "grid": CODES}


def keys(output: Path | str) -> list[str]:
    return sorted(row.key for row in open_dataset(str(output)).iterate(labels=True))


def faults(output: Path | str) -> list[str]:
    return [f"{fault.problem} {fault.object}: {fault.what}" for fault in verify(str(output)).faults]


def tar(folder: Path, name: str, photos: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(tar_bytes([(f"{key}.jpg", photo) for key, photo in photos.items()]))
    return path


@pytest.fixture
def some(photos) -> dict[str, bytes]:
    return {name: photos[name] for name in ("chelsea", "coffee", "flower", "rocket")}


# --- growth -----------------------------------------------------------------------------------------------------------


def one_photograph(corpus: Path, photos: dict[str, bytes]) -> tuple[Any, set[str]]:
    (corpus / "new.jpg").write_bytes(photos["coffee"])
    return corpus, {"new"}


def a_folder_below(corpus: Path, photos: dict[str, bytes]) -> tuple[Any, set[str]]:
    (corpus / "0").mkdir()
    (corpus / "0/new.jpg").write_bytes(photos["coffee"])
    return corpus, {"0/new"}


def another_url(corpus: Path, photos: dict[str, bytes]) -> tuple[Any, set[str]]:
    other = corpus.with_name("another")
    other.mkdir()
    (other / "astronaut.jpg").write_bytes(photos["coffee"])
    return [str(other), str(corpus)], {"another/astronaut"}


def the_folder_above(corpus: Path, photos: dict[str, bytes]) -> tuple[Any, set[str]]:
    another_url(corpus, photos)
    return str(corpus.parent / "{corpus,another}"), {"another/astronaut"}


@pytest.mark.parametrize("grow", [one_photograph, a_folder_below, another_url, the_folder_above])
@pytest.mark.parametrize("begin", [None, 2])
def test_what_comes_later_alone_is_made(corpus_folder, photos, tmp_path, grow: Callable, begin):
    output = tmp_path / "out"
    weave(recipe(corpus_folder, output, BOTH, **MORE), limit=begin)
    before, had = shards_of(output), set(keys(output))
    for path in [path for path in before if path.startswith("fit/")]:
        del before[path]  # put aside until all is labelled
    corpus, new = grow(corpus_folder, photos)
    settings = {"url": corpus if isinstance(corpus, list) else str(corpus)}
    grown = recipe(corpus_folder, output, BOTH, **MORE)
    grown = grown.model_copy(update={"corpus": CorpusSettings.model_validate(settings)})
    tally = weave(grown)
    assert set(keys(output)) == {path.stem for path in corpus_folder.glob("*.txt")} | new
    assert tally.samples == len(keys(output)) - len(had)
    assert before.items() <= shards_of(output).items()
    assert faults(output) == []
    after = digests(output)
    assert weave(grown).units == 0
    assert digests(output) == after
    more = recipe(corpus_folder, output, {**BOTH, "canny_edge": {"keep": "labels"}}, **MORE)
    weave(more.model_copy(update={"corpus": grown.corpus}))
    assert faults(output) == []
    assert len(open_dataset(output)) == len(keys(output))


def test_tars_grow_into_the_same_as_all_at_once(some, photos, tmp_path):
    folder = tmp_path / "tars"
    tar(folder, "b.tar", some)
    weave(recipe(folder, tmp_path / "grown", COLOUR, **MORE))
    tar(folder, "a.tar", {"astronaut": photos["astronaut"]})
    tar(folder, "c.tar", {"china": photos["china"]})
    weave(recipe(folder, tmp_path / "grown", COLOUR, **MORE))
    weave(recipe(folder, tmp_path / "at-once", COLOUR, **MORE))
    assert shards_of(tmp_path / "grown") == shards_of(tmp_path / "at-once")


def test_a_corpus_that_moved_is_the_same(corpus_folder, tmp_path, capsys):
    weave(recipe(corpus_folder, tmp_path / "out", COLOUR, **MORE))
    before = shards_of(tmp_path / "out")
    moved = corpus_folder.rename(tmp_path / "elsewhere")
    again = recipe(moved, tmp_path / "out", COLOUR, **MORE)
    print_growth(plain_console(), make_plan(again))
    assert f"taken from {moved} from now on; it was {corpus_folder}" in capsys.readouterr().out
    assert weave(again).units == 0
    print_growth(plain_console(), make_plan(again))
    assert capsys.readouterr().out == ""
    assert shards_of(tmp_path / "out") == before
    assert require_manifest(Store(tmp_path / "out")).corpus.root == str(moved)


# --- what has changed -------------------------------------------------------------------------------------------------


def test_a_cut_tar_that_was_replaced_is_made_anew_on_the_users_word(some, photos, tmp_path, capsys):
    folder, output = tmp_path / "tars", tmp_path / "out"
    tar(folder, "b.tar", {"astronaut": photos["astronaut"]})
    whole = tar(folder, "a.tar", some).read_bytes()
    (folder / "a.tar").write_bytes(whole[: len(whole) // 2])
    made = recipe(folder, output, BOTH, **MORE)
    weave(made)
    before, had = digests(output), keys(output)
    (folder / "a.tar").write_bytes(whole)
    (tmp_path / "recipe.json").write_text(made.model_dump_json(exclude_unset=True))
    with without_ray():
        command(str(tmp_path / "recipe.json"), [], [], None, [], False, None, False)
    said = capsys.readouterr().out
    assert "changed in the corpus: 1 file, a.tar" in said
    assert "1 shard with such files left as it was taken up: --take-changes makes anew" in said
    assert digests(output) == before
    with without_ray():
        command(str(tmp_path / "recipe.json"), [], [], None, [], True, None, False)
    assert keys(output) == sorted({*some, "astronaut"}) != had
    assert faults(output) == []
    there = read_status(Store(output))
    assert (there.finished, there.shards, there.broken) == (True, 2, [])
    assert there.superseded > 0
    labels = labels_of(output, "mean_colour")
    weave(recipe(folder, tmp_path / "fresh", COLOUR, **MORE))
    assert labels == labels_of(tmp_path / "fresh", "mean_colour")
    remove_garbage(Store(output), timedelta(0))
    assert faults(output) == []
    assert read_status(Store(output)).superseded == 0
    assert keys(output) == sorted({*some, "astronaut"})


@pytest.mark.parametrize("damage", ["cut", "a header overwritten", "no end mark"])
def test_what_is_missing_of_a_tar_is_said_in_bytes(some, tmp_path, capsys, damage):
    folder, output = tmp_path / "tars", tmp_path / "out"
    data = bytearray(tar(folder, "a.tar", some).read_bytes())
    second = 512 + -(-len(some["chelsea"]) // 512) * 512
    if damage == "cut":
        del data[second + 5_512 :]
        said = (
            f"a.tar is broken at byte {second}: its member coffee.jpg is cut off, {len(some['coffee']) - 5000:,} bytes "
        )
        said += f"before its end; 5,512 of its {len(data):,} bytes can't be read, all from there on"
    elif damage == "a header overwritten":
        data[second : second + 512] = b"x" * 512
        said = f"; {len(data) - second:,} of its {len(data):,} bytes can't be read, all from there on"
    else:
        del data[len(bytes(data).rstrip(b"\0")) // 512 * 512 + 512 :]
        said = f"a.tar is broken at byte {len(data)}: the file ends before the archive does"
    (folder / "a.tar").write_bytes(data)
    tar(folder, "b.tar", some)
    made = recipe(folder, output, COLOUR, **MORE)
    (tmp_path / "recipe.json").write_text(made.model_dump_json(exclude_unset=True))
    with without_ray():
        command(str(tmp_path / "recipe.json"), [], [], None, [], False, None, False)
    assert "incomplete: a.tar is broken at byte " in (printed := capsys.readouterr().out)
    assert said in printed
    status(str(output), watch=False, as_json=False)
    assert said in " ".join(capsys.readouterr().out.split())
    assert [said in reason for reason in read_status(Store(output)).broken] == [True]


def test_nothing_is_made_of_what_has_changed_until_it_is_taken(corpus_folder, photos, tmp_path):
    output = tmp_path / "out"
    weave(recipe(corpus_folder, output, COLOUR, **MORE))
    (corpus_folder / "coffee.jpg").write_bytes(photos["china"])
    (corpus_folder / "later.jpg").write_bytes(photos["china"])
    more = recipe(corpus_folder, output, {**COLOUR, "canny_edge": {"keep": "labels"}}, **MORE)
    weave(more)
    assert {key for key, _ in labels_of(output, "canny_edge")} == {"later"}
    assert len(labels_of(output, "mean_colour")) == 7
    weave(more, take_changes=True)
    assert len(labels_of(output, "canny_edge")) == len(labels_of(output, "mean_colour")) == 7
    assert labels_of(output, "mean_colour")["coffee", 0] == labels_of(output, "mean_colour")["china", 0]
    assert faults(output) == []


def test_what_is_gone_stays_until_that_is_taken(corpus_folder, tmp_path):
    output = tmp_path / "out"
    made = recipe(corpus_folder, output, COLOUR, **MORE)
    weave(made)
    for path in corpus_folder.glob("coffee.*"):
        path.unlink()
    before = digests(output)
    assert weave(made).units == 0
    assert (digests(output), len(keys(output)), faults(output)) == (before, 6, [])
    weave(made, take_changes=True)
    assert len(keys(output)) == 5
    assert faults(output) == []


@pytest.mark.parametrize("way", ["asked", "kept", "begun"])
def test_a_modality_is_not_replaced_for_a_part_of_the_corpus(corpus_folder, tmp_path, way):
    """Be it by --replace, by keeping more of it, or by going on with what was begun before the corpus changed."""
    output, replacing = tmp_path / "out", ["grid"] if way == "asked" else []
    tokens = {**CODES, "keep": "tokens"}
    weave(recipe(corpus_folder, output, {"grid": tokens}, **MORE))
    anew = {"kept": CODES}.get(way, {**tokens, "tokenizer": {"name": "codebook", "params": {"size": 2}}})
    other = recipe(corpus_folder, output, {"grid": anew}, **MORE)
    if way == "begun":
        weave(other, ["grid"], limit=3)
    (corpus_folder / "coffee.jpg").unlink()
    with pytest.raises(DatasetError, match=r"grid can't be made anew for 1 .*coffee.jpg.*--take-changes"):
        make_plan(other, replacing)
    assert len(list(open_dataset(str(output)).iterate(["grid"]))) == 6
    weave(other, replacing, take_changes=True)
    assert (len(list(open_dataset(str(output)).iterate(["grid"]))), faults(output)) == (5, [])


@pytest.mark.parametrize("way", ["another recipe", "made anew"])
@pytest.mark.parametrize("command", [("plan", "--calibrate", 0), ("run", "--dry-run"), ("run", "--limit", 1)])
def test_what_loses_samples_by_taking_changes_is_named_before(corpus_folder, photos, tmp_path, way, command):
    output, below = tmp_path / "out", corpus_folder / "below"
    below.mkdir()
    for name in "abcd":
        (below / f"{name}.jpg").write_bytes(photos["coffee"])
    weave(recipe(corpus_folder, output, BOTH, **MORE))
    (below / "b.jpg").write_bytes(photos["china"])
    anew = {**CODES, "tokenizer": {"name": "codebook", "params": {"size": 2}}}
    other = {"grid": anew} if way == "made anew" else COLOUR
    path = tmp_path / "mine.json"
    path.write_text(recipe(corpus_folder, output, other, **MORE).model_dump_json(exclude_unset=True))
    replaced = ("--replace", "grid") if way == "made anew" else ()
    printed = said(command[0], path, *command[1:], "--take-changes", *replaced)
    unmade = "mean_colour" if replaced else "grid"
    lines = [f"{unmade}, which this recipe doesn't make, loses 4 of its 10 samples until a recipe that has it is run"]
    lines += ["grid loses 4 of its 10 samples until it is made anew"] if replaced else []
    assert sorted(line for line in printed.splitlines() if " loses " in line) == sorted(lines)


def test_another_corpus_is_refused(corpus_folder, some, tmp_path):
    weave(recipe(corpus_folder, tmp_path / "out", COLOUR, **MORE))
    tar(tmp_path / "tars", "a.tar", some)
    for take in (False, True):
        with pytest.raises(RecipeError, match="this is another one"):
            make_plan(recipe(tmp_path / "tars", tmp_path / "out", COLOUR, **MORE), take_changes=take)


@pytest.mark.parametrize("named_first", [False, True])
def test_files_of_another_format_change_nothing_and_naming_the_format_neither(
    corpus_folder, some, tmp_path, named_first
):
    """A tar that someone laid beside the photographs, before or after the format was written down."""

    def of(**reading: str) -> Recipe:
        corpus = {"url": str(corpus_folder), **reading}
        return parse_recipe({"corpus": corpus, "output": str(tmp_path / "out"), "modalities": COLOUR, **MORE})

    named = of(format="folder")
    orders = [named, of()] if named_first else [of(), named]
    before = make_plan(orders[0]).graph.cards
    weave(orders[0])
    tar(corpus_folder, "backup.tar", some)
    for asked in reversed(orders):
        plan = make_plan(asked)
        assert (plan.works, plan.growth.left, plan.graph.cards) == ([], [], before)
        assert any("1 tar left out: backup.tar" in line for line in plan.request.corpus.left_out)
    with pytest.raises(DatasetError, match="was made of the corpus as it is read by"):
        make_plan(of(format="tar"))


def test_failures_can_be_tried_again_after_growth(corpus_folder, photos, tmp_path):
    output = tmp_path / "out"
    waits = {"mean_colour": odd("WaitsFor", params={"file": str(tmp_path / "now")})}
    weave(recipe(corpus_folder, output, waits, **MORE))
    (corpus_folder / "later.jpg").write_bytes(photos["china"])
    weave(recipe(corpus_folder, output, waits, **MORE))
    (tmp_path / "now").touch()
    with without_ray():
        tally = retry(str(output))
    assert sum(tally.rows.values()) > sum(tally.failed.values()) == 0
    assert faults(output) == []


# --- readers and listings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grown_by", ["a tar", "nothing"])
def test_a_reader_goes_on_with_what_it_opened(some, photos, tmp_path, grown_by):
    folder, output = tmp_path / "tars", tmp_path / "out"
    tar(folder, "a.tar", some)
    made = recipe(folder, output, COLOUR, **MORE)
    weave(made)
    dataset = open_dataset(output)
    rows = dataset.iterate(labels=True)
    first = next(rows)
    if grown_by == "a tar":
        tar(folder, "b.tar", {"china": photos["china"]})
    tar(folder, "a.tar", dict(list(some.items())[:2]))
    weave(made, take_changes=True)
    assert [first.key, *(row.key for row in rows)] == sorted(some)


def test_what_is_made_anew_is_not_called_new(tokenloom: Callable[..., str], photos, tmp_path):
    """One caption changed, another added, one picture gone; then a picture that is new, too."""
    corpus = tmp_path / "corpus"
    (corpus / "day").mkdir(parents=True)
    for name in ("a0", "a1", "a2", "a3"):
        (corpus / "day" / f"{name}.png").write_bytes(photos["coffee"])
    (corpus / "day/a0.txt").write_text("a cup")
    weave(recipe(corpus, tmp_path / "out", {"caption": {"keep": "labels"}}))
    (corpus / "day/a0.txt").write_text("a cup of coffee")
    (corpus / "day/a1.txt").write_text("a cup, too")
    (corpus / "day/a2.png").unlink()
    said = {"changed": "changed in the corpus: 2 files, day/a0.txt, day/a1.txt", "gone": "gone in the corpus: 1 file, "}
    (tmp_path / "mine.yaml").write_text(
        f"corpus: {corpus}\noutput: {tmp_path / 'out'}\nmodalities: {{caption: {{keep: labels}}}}"
    )

    def planned(*words: str) -> str:
        with without_ray():
            return tokenloom("plan", tmp_path / "mine.yaml", "--calibrate", "0", *words)

    for words in ((), ("--take-changes",)):
        printed = planned(*words)
        assert "new in the corpus" not in printed
        assert all(text in printed for text in said.values())
    (corpus / "day/b0.png").write_bytes(photos["coffee"])
    for words in ((), ("--take-changes",)):
        assert "new in the corpus: 1 file, day/b0.png" in planned(*words)
