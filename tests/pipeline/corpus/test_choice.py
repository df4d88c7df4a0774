"""What URLs choose: globs and single files of image folders, brackets, keys with empty parts, an output inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_files import contents, corpus_of, left_out, put_all, tar_bytes
from in_process import weave
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.storage.store import Store
from weaving import labels_of, recipe

CAPTIONS = {"caption": {"keep": "labels"}}


@pytest.fixture(scope="module")
def photographs(kept_place: Store) -> Store:
    """Two folders of images with captions; in one a table, too, whose rows tell of it."""
    files = {"one/metadata.jsonl": b'{"file_name": "a.jpg", "n": 1}'}
    for folder in ("one", "two [2019]"):
        for name in ("a.jpg", "b.jpg", "c.png"):
            files |= {f"{folder}/{name}": b"1", f"{folder}/{name[0]}.txt": name.encode()}
    put_all(kept_place, files)
    return kept_place


@pytest.mark.parametrize(
    ("patterns", "keys"),
    [
        (["/one/*.jpg"], ["a", "b"]),
        (["/one/a.jpg"], ["a"]),
        (["/one/{a,b}.jpg"], ["a", "b"]),
        (["/one/[ab].jpg"], ["a", "b"]),
        (["/*/?.png"], ["one/c", "two [2019]/c"]),
        (["/two [2019]/*.jpg"], ["a", "b"]),
        (["/two [2019]"], ["a", "b", "c"]),
        (["/two [2019]/a.jpg"], ["a"]),
        (["/one/a.jpg", "/two [2019]/c.png"], ["two [2019]/c", "a"]),
        (["/o*"], ["a", "b", "c"]),
    ],
)
def test_images_that_are_chosen_one_by_one_come_with_their_texts(photographs, patterns, keys):
    urls = [photographs.url + pattern for pattern in patterns]
    corpus = corpus_of(urls if len(urls) > 1 else urls[0])
    samples, refused = contents(corpus)
    names = [key.removeprefix("one/") if patterns == ["/o*"] else key for key in samples]
    told = [line for line in left_out(corpus) if "row of a table" not in line]  # of an image that isn't chosen
    assert (names, refused, told) == (keys, [], [])
    for key, sample in samples.items():
        assert sample.fields["caption"][0] == key[-1]
        assert ("n" in sample.fields) == (key[-1] == "a" and "two" not in key and "2019" not in urls[0])


def test_a_run_on_a_glob_of_images(corpus, tmp_path):
    made = recipe(f"{corpus}/c*.jpg", tmp_path / "out", CAPTIONS)
    assert weave(made).samples == 3
    assert weave(made).units == 0
    assert {key for key, _ in labels_of(tmp_path / "out", "caption")} == {"chelsea", "china", "coffee"}


@pytest.mark.s3
def test_keys_that_no_path_leads_to_are_named(s3_url):
    store = Store(s3_url)
    fs, root = store._files().fs, store._files().root  # type: ignore[union-attr] - Store refuses to write such names
    fs.pipe_file(f"{root}/a/x.jpg", b"1")
    for name in ("a//y.jpg", "b/./z.jpg", "b/../w.jpg"):
        fs.call_s3("put_object", Bucket=root.split("/")[0], Key=f"{root.split('/', 1)[1]}/{name}", Body=b"1")
    corpus = corpus_of(s3_url)
    assert list(contents(corpus)[0]) == ["a/x"]
    (line,) = left_out(corpus)
    assert line.startswith("3 names with an empty part, `.` or `..` left out: a//y.jpg, b/../w.jpg, b/./z.jpg (rename")


@pytest.mark.parametrize(
    ("corpus_url", "output", "inside"),
    [
        ("photos", "photos/out", True),
        ("photos", "photos/deep/out", True),
        ("photos", "photos", True),
        ("photos/*", "photos/out", True),
        ("**/*.jpg", "photos/out.jpg", True),
        ("photos/*.jpg", "photos/out", False),
        ("photos", "photos-out", False),
        ("photos", "out", False),
        ("photos/{a,b}.jpg", "photos/out", False),
        ("**/*.jpg", "photos/out", True),
        ("photos/**", "photos", True),
        ("photos/*.jpg", "photos", True),
        ("photos/{a,b}.jpg", "photos", True),
        ("*/[ab].jpg", "photos", True),
        ("photos/*.jpg", "photos.jpg", False),
        ("*/*.jpg", "a/b", False),
        ("*/*.jpg", "photos/out.jpg/x", True),
    ],
)
def test_an_output_inside_the_corpus_is_refused(tmp_path: Path, monkeypatch, corpus_url, output, inside):
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    for place in (corpus_url, str(tmp_path / corpus_url)):
        made = recipe(place, output, CAPTIONS)
        if inside:
            with pytest.raises(ValueError, match=f"{output} lies in the corpus.*--output"):
                make_plan(made)
        else:
            assert len(make_plan(made).shards) == 1


def test_a_tar_in_a_folder_with_brackets_and_a_glob(place):
    place.create("shards [new]/a.tar", tar_bytes([("x.jpg", b"1")]))
    assert list(contents(corpus_of(f"{place.url}/shards [new]/*.tar"))[0]) == ["x"]
    assert list(contents(corpus_of(f"{place.url}/s*/[ab].tar"))[0]) == ["x"]
