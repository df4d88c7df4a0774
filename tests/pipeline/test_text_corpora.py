"""Corpora of texts through whole runs: what is made of them, what a resume reads again, and what is refused."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import weave, without_ray
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import require_manifest, vocabulary_digest
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe, RecipeError, load_recipe
from tokenloom.pipeline.preview.cells import MOST_PIECES
from tokenloom.pipeline.preview.preview import write_preview
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.contract.special_tokens import FIRST_WORD, UNK
from weaving import failures_of, shards_of

CONTROLS = ["[EOS]", "[S_1] [PAD]", "v0=12 v3=999", "[UNK][SOS]"]
LONG = "one two, three four. " * 1000
TEXTS = [f"document {n} about a traffic light, {n % 7} cats\nand dogs" for n in range(40)] + CONTROLS + [LONG]


def write_texts(folder: Path, shards: int = 2) -> None:
    folder.mkdir(parents=True)
    for shard in range(shards):
        rows = [json.dumps({"text": text, "url": "u"}) for text in TEXTS]
        data = "\n".join([*rows, '{"text": null}', "{", ""]).encode()
        (folder / f"c4.{shard:05d}.json.gz").write_bytes(gzip.compress(data))


def text_recipe(corpus: Path | str, output: Path | str, **more) -> Recipe:
    """The shipped recipe, with small units."""
    settings = {"units.samples": 8, "resources.workers": 1, **more}
    return load_recipe(
        "text", [f"{key}={json.dumps(value)}" for key, value in settings.items()], [str(corpus)], str(output)
    )


@pytest.fixture(scope="module")
def woven(tmp_path_factory) -> Path:
    """A folder with `corpus` and the dataset made of it, which tests don't change."""
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder / "corpus")
    weave(text_recipe(folder / "corpus" / "*.json.gz", folder / "out"))
    return folder


def test_documents_are_stored_whole_and_a_bad_line_costs_itself(woven):
    dataset = open_dataset(woven / "out")
    rows = list(dataset)
    assert len(rows) == 2 * len(TEXTS)
    (card,) = require_manifest(Store(woven / "out")).modalities.values()
    assert card.tokens is not None
    assert card.tokens.tokenizer == "documents"
    for row, text in zip(rows, TEXTS * 2, strict=True):
        ids = row.values["text"]
        assert ids.dtype == np.uint16
        assert "".join(dataset.decode("text", ids).split()) == "".join(text.lower().split())
    assert max(len(row.values["text"]) for row in rows) > 5000
    assert sorted((one.key[:13], one.error) for one in failures_of(woven / "out", "corpus")) == [
        (f"c4.0000{shard}.json", error) for shard in range(2) for error in ("InvalidJSON", "NoText")
    ]
    assert verify(str(woven / "out")).faults == []


def test_texts_that_spell_control_tokens_are_texts(woven):
    rows = {row.key: row for row in open_dataset(woven / "out")}
    ids = np.concatenate([row.values["text"] for row in rows.values()])
    assert ((ids >= FIRST_WORD) | (ids == UNK)).all()


def test_a_resume_makes_what_is_lacking_alone_and_counts_what_it_reads_again(woven, tmp_path):
    output = tmp_path / "out"
    recipe = text_recipe(woven / "corpus" / "*.json.gz", output, vocabulary=str(woven / "out"))
    weave(recipe)
    whole = shards_of(output)
    lost = sorted(name for name in whole if name.endswith(".parquet"))[2:4]
    for name in lost:
        (output / name).unlink()
    plan = make_plan(recipe)
    assert [(work.start > 0, work.stop is not None) for work in plan.again] == [(True, True)]
    tally = weave(recipe)
    assert (tally.units, tally.again > 0) == (2, True)
    assert shards_of(output) == whole


def test_what_is_not_compressed_is_entered_where_work_begins(woven, tmp_path):
    corpus, output = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    (corpus / "docs.jsonl").write_text("".join(f"{json.dumps({'text': text})}\n" for text in TEXTS))
    recipe = text_recipe(corpus, output, vocabulary=str(woven / "out"))
    weave(recipe)
    lost = sorted(output.glob("text/*/*.parquet"))[3]
    lost.unlink()
    assert not make_plan(recipe).again
    assert weave(recipe).again == 0
    assert lost.exists()


def test_the_vocabulary_may_be_another_datasets(woven, tmp_path):
    write_texts(tmp_path / "corpus", 1)
    weave(text_recipe(tmp_path / "corpus" / "*.json.gz", tmp_path / "out", vocabulary=str(woven / "out")))
    theirs, ours = (vocabulary_digest(require_manifest(Store(at / "out")).modalities) for at in (woven, tmp_path))
    assert theirs == ours is not None
    assert [row.values["text"].tolist() for row in open_dataset(tmp_path / "out")] == [
        row.values["text"].tolist() for row in list(open_dataset(woven / "out"))[: len(TEXTS)]
    ]


def test_texts_have_the_same_tokens_in_every_format(woven, tmp_path):
    texts = [text.replace("\n", " ").strip() for text in TEXTS]
    lines = {"jsonl": "".join(f"{json.dumps({'text': text})}\n" for text in texts), "txt": "\r\n".join(texts)}
    (tmp_path / "docs.jsonl.zst").write_bytes(pa.Codec("zstd").compress(lines["jsonl"].encode(), asbytes=True))
    (tmp_path / "docs.txt").write_text(lines["txt"])
    pq.write_table(pa.table({"text": texts}), tmp_path / "docs.parquet")
    found = []
    for name in ("docs.jsonl.zst", "docs.txt", "docs.parquet"):
        output = tmp_path / f"of-{name}"
        weave(text_recipe(tmp_path / name, output, vocabulary=str(woven / "out")))
        assert verify(str(output)).faults == []
        found.append([row.values["text"].tolist() for row in open_dataset(output)])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == len(texts)


def test_a_dataset_without_a_vocabulary_can_lend_none(corpus, tmp_path):
    plan = load_recipe(
        "quickstart", ["modalities=[rgb]", "modalities.rgb.keep=labels"], [str(corpus)], str(tmp_path / "a")
    )
    weave(plan)
    with pytest.raises(RecipeError, match=r"vocabulary: .*/a has no text vocabulary"):
        make_plan(text_recipe(corpus, tmp_path / "b", vocabulary=str(tmp_path / "a")))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("texts", "texts: neither a tokenizer.json nor a dataset"),
        ("file:///tmp/texts-of-mine", "file:///tmp/texts-of-mine: neither a tokenizer.json nor a dataset"),
        ("nowhere", "nowhere: no such file or folder; name a tokenizer.json, or a dataset"),
        ("runs/of-mine", "runs/of-mine: no such file or folder; name a tokenizer.json, or a dataset"),
        ("memory://nowhere/tokenizer.json", "memory://nowhere/tokenizer.json: nothing there"),
        ("texts/a.jsonl", "texts/a.jsonl: "),
    ],
)
def test_what_is_no_vocabulary_is_called_by_that_name(named, said, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.jsonl").write_text('{"text": "a text"}\n')
    with pytest.raises(RecipeError, match="vocabulary: ") as refused:
        make_plan(text_recipe(tmp_path / "texts", tmp_path / "out", vocabulary=named))
    assert said in str(refused.value)
    assert "weights" not in str(refused.value)


def test_a_damaged_vocabulary_is_lent_to_nobody(woven, tmp_path):
    shutil.copytree(woven / "out", tmp_path / "a")
    (file,) = (tmp_path / "a" / "vocabularies").rglob("vocabulary.json")
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b'"zebra"', b'"zebrb"'))
    with pytest.raises(RecipeError, match=r"vocabulary.json is damaged"):
        make_plan(text_recipe(woven / "corpus", tmp_path / "b", vocabulary=str(tmp_path / "a")))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"modalities.depth": {}, "modalities.rgb": {}}, "modalities.depth: depth looks at images"),
        ({"modalities.edges": {"labeler": "canny_edge"}}, "modalities.edges: canny_edge looks at images"),
        ({"views.count": 2}, "views.count: 2 views of a text"),
    ],
)
def test_what_needs_images_is_refused_before_anything_runs(woven, tmp_path, settings, said):
    with pytest.raises(RecipeError, match=said):
        make_plan(text_recipe(woven / "corpus", tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


def test_a_corpus_grows_by_files(woven, tmp_path):
    write_texts(tmp_path / "corpus", 1)
    recipe = text_recipe(tmp_path / "corpus", tmp_path / "out", vocabulary=str(woven / "out"))
    weave(recipe)
    before = shards_of(tmp_path / "out")
    (tmp_path / "corpus" / "new.json.gz").write_bytes(gzip.compress(b'{"text": "more"}\n'))
    tally = weave(recipe)
    assert tally.samples == 1
    assert before.items() <= shards_of(tmp_path / "out").items()


def test_the_gallery_shows_the_beginning_of_a_long_text(woven, tmp_path):
    write_preview(str(woven / "out"), tmp_path / "gallery", None)
    script = next((tmp_path / "gallery" / "data").glob("page-0000.js")).read_text()
    cards = json.loads(script.partition("page(0,")[2].rpartition(")")[0])
    cells = [card["cells"][0] for card in cards]
    assert all(card["origin"] == "" for card in cards)
    assert cells[0]["decoded"]["text"].startswith("document 0 about a traffic light")
    overview = (tmp_path / "gallery" / "data" / "overview.js").read_text()
    assert '"problem":""' in overview
    assert '"texts":true' in overview, "so no place is kept for pictures"
    pages = "".join(page.read_text() for page in (tmp_path / "gallery" / "data").glob("page-*.js"))
    longest = max(len(row.values["text"]) for row in open_dataset(woven / "out"))
    assert f'"more":{longest - MOST_PIECES}' in pages


@pytest.mark.parametrize("place", ["local", pytest.param("s3", marks=pytest.mark.s3)])
def test_the_command_line(place, woven, tmp_path, tokenloom, request):
    """As a user types it, on S3, too; in this process and without Ray."""
    where = tmp_path.as_posix() if place == "local" else request.getfixturevalue("s3_url")
    for path in (woven / "corpus").iterdir():
        Store(f"{where}/c4").create(path.name, path.read_bytes())
    words = ("text", "--corpus", f"{where}/c4/*.json.gz", "--output", f"{where}/tokens", "--set", "units.samples=16")
    with without_ray():
        said = tokenloom("run", *words)
    assert f"{2 * len(TEXTS)} samples in 6 units, 1 modality; 4 samples refused by the corpus reader" in said
    assert "100%" in tokenloom("status", f"{where}/tokens")
    assert "all as written" in tokenloom("verify", f"{where}/tokens")
    assert "the field 'text' is null" in tokenloom("quarantine", f"{where}/tokens")
    store = Store(f"{where}/tokens")
    store.delete(
        next(entry.name for entry in store.list() if entry.name.endswith(".parquet") and "-end-" in entry.name)
    )
    with without_ray():
        said = tokenloom("plan", *words, "--calibrate", "0")
        assert "1 stretch of this in the middle of a compressed file, which has to be read again from its" in said
        said = tokenloom("run", *words)
    assert "of compressed files read again, to come to where there was something to do" in said
