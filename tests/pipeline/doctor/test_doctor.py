"""`tokenloom doctor` on one machine: what is well, and every way in which something isn't."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from faulty_s3 import Fault, FaultyS3, Kind
from in_process import said
from PIL import Image
from tokenloom.pipeline.checks.inventory import foreign
from tokenloom.pipeline.corpus.corpus import Corpus, CorpusSettings
from tokenloom.pipeline.dataset.layout import DOCTORS
from tokenloom.pipeline.doctor import gpus
from tokenloom.pipeline.doctor.finding import Level, Row, failed, grouped, ok
from tokenloom.pipeline.doctor.places import clock, left_behind, look_at_output, marked, skew
from tokenloom.pipeline.doctor.samples import chosen, look_at_corpus, look_at_samples
from tokenloom.pipeline.doctor.space import SESSION, disk, shared_memory
from tokenloom.pipeline.doctor.subject import looks_at_images
from tokenloom.pipeline.doctor.versions import compare, needed
from tokenloom.pipeline.plan.recipe import parse_recipe
from tokenloom.pipeline.storage.store import StorageError, Store

GIB = 2**30


@pytest.fixture
def place(small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path, corpus=str(small_corpus))


def write(folder: Path, **changed: object) -> Path:
    content = {"corpus": "corpus", "output": "out/deep", "modalities": {"canny_edge": {}}, **changed}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    return folder


def levels(table: str) -> dict[str, str]:
    """What the table says of each check."""
    words = ("ok", "warning", "failed")
    rows = [(line, next((word for word in words if f"  {word}  " in line), None)) for line in table.splitlines()]
    return {line.partition(f"  {word}  ")[0].strip(): word for line, word in rows if word}


def flat(table: str) -> str:
    """The table without its lines' ends, which lie where the width wants them."""
    return " ".join(table.split())


def test_what_is_well_leaves_nothing_behind(place):
    table = said("doctor", "mine.yaml")
    assert set(levels(table)) >= {
        "corpus",
        "samples",
        "classes",
        "plan",
        "output",
        "clock (output)",
        "/dev/shm",
        "disk (output)",
    }
    assert {found for check, found in levels(table).items() if "disk" not in check} <= {"ok", "warning"}
    assert "read and decoded" in flat(table)
    assert [path.name for path in place.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("changed", "check", "told"),
    [
        ({"corpus": "nowhere"}, "corpus", "nowhere"),
        ({"corpus": "broken"}, "samples", "broken/a.tar"),
        ({"output": "/sys/tokenloom"}, "output", "-> "),  # which nobody may write to, root neither
        ({"output": "mine.yaml/out"}, "output", "-> A file is in the way"),
        ({"modalities": {"mine": {"labeler": "mine_that_fails:Mine"}}}, None, "division by zero"),
        ({"modalities": {"depth": {"weights": "/no/where"}}}, "weights (depth)", "/no/where: no such file or folder"),
        ({"modalities": {"depth": {"weights": "a/b"}}}, "weights (depth)", "a/b: not in the hub's cache"),
        ({"modalities": {"depth": {"weights": "memory://no/where"}}}, "weights (depth)", "nothing there"),
        # What `run` refuses before any work, in its own words:
        ({"resources": {"stages": [{"modalities": ["canny_edge"], "num_cpus": 5000}]}}, "plan", "run on a larger"),
        ({"modalities": {"caption": {}}, "vocabulary": "/no/where"}, "plan", "vocabulary: /no/where: no such file"),
        ({"modalities": {"rgb": {"tokenizer": {"name": "vq", "weights": "/no/w"}}}}, "plan", "/no/w: no such file"),
        ({"output": "pictures/below", "corpus": "pictures"}, "plan", "lies in the corpus"),
        ({"output": "taken"}, "plan", "is no dataset"),
    ],
)
def test_what_is_amiss_is_named_with_the_way_out(place, changed, check, told):
    (place / "broken").mkdir()
    (place / "broken/a.tar").write_bytes(b"no tar" * 200)
    (place / "pictures").mkdir()
    Image.new("RGB", (32, 32)).save(place / "pictures/a.jpg")
    (place / "taken").mkdir()
    (place / "taken/thesis.doc").write_text("mine")
    recipe = yaml.safe_load((place / "mine.yaml").read_text())
    write(place, **{**recipe, **changed})
    if check is None:  # the recipe itself can't be used, as `run` says, too; whose code it runs is told before
        (place / "mine_that_fails.py").write_text("1 / 0\n")  # a name of its own: others' folders are still on the path
        table = said("doctor", "mine.yaml", code=2)
        assert f"mine_that_fails:Mine: code of {place}" in table
    else:
        table = said("doctor", "mine.yaml", code=1)
        assert levels(table)[check] == "failed", table
    assert told in flat(table)


def test_it_judges_the_plan_of_the_run_that_follows(place):
    """Which may replace modalities, and take up changes of the corpus."""
    photos = place / "photos"
    photos.mkdir()
    for name in "ab":
        Image.new("RGB", (32, 32), (len(list(photos.iterdir())), 0, 0)).save(photos / f"{name}.png")
    write(place, corpus="photos", output="out", modalities={"canny_edge": {"keep": "labels"}})
    said("run", "mine.yaml")
    write(place, corpus="photos", output="out", modalities={"canny_edge": {"keep": "labels", "params": {"low": 50}}})
    assert "Make that anew with --replace canny_edge" in flat(said("doctor", "mine.yaml", code=1))
    Image.new("RGB", (64, 64)).save(photos / "b.png")
    replaced = flat(said("doctor", "mine.yaml", "--replace", "canny_edge", code=1))
    assert "plan failed" in replaced
    assert "say --take-changes, too" in replaced
    told = flat(said("doctor", "mine.yaml", "--replace", "canny_edge", "--take-changes"))
    assert "plan ok there is work to do for canny_edge" in told
    with pytest.MonkeyPatch.context() as patch:  # and the same where it is done by a job
        words: list[object] = []
        patch.setattr("tokenloom.pipeline.commands.doctor.have_done", lambda *given: words.extend(given[-1]) or 0)
        said("doctor", "mine.yaml", "--address", "http://head:8265", "--replace", "canny_edge", "--take-changes")
    assert words == ["--replace", "canny_edge", "--take-changes"]


def test_some_samples_of_some_shards_are_decoded(place):
    """Of each listed URL the first shard, the last and one between; an empty one is none that failed."""

    def tar(name: str, *images: bytes) -> None:
        with tarfile.open(place / name, "w") as file:
            for number, data in enumerate(images):
                info = tarfile.TarInfo(f"{Path(name).stem}{number}.jpg")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))

    def found(*urls: str, **changed: object) -> tuple[Level, str]:
        recipe = parse_recipe({"corpus": {"url": list(urls)}, "output": "out", "modalities": ["rgb"], **changed})
        (_, shards) = look_at_corpus(recipe.corpus)
        one = look_at_samples(recipe.corpus, shards, looks_at_images(recipe), recipe.max_failures)
        return one.level, one.said

    for folder in ("good", "bad", "many"):
        (place / folder).mkdir()
    Image.new("RGB", (32, 32)).save(place / "a.jpg")
    good = (place / "a.jpg").read_bytes()
    tar("good/0.tar")
    tar("good/1.tar", good, good, good)
    tar("bad/0.tar", good, good, good)
    tar("bad/1.tar", good)
    (place / "bad/2.tar").write_bytes(b"no tar" * 200)
    tar("bad/3.tar", b"no image", b"no image", good)
    for number in range(40):
        tar(f"many/{number:02}.tar", good)
    (place / "many/39.tar").write_bytes(b"no tar" * 200)
    assert found("good") == (Level.OK, "3 samples of 2 shards read and decoded")
    level, said = found("bad")
    assert level is Level.WARNING
    assert "of 7 samples of 3 shards 3 can't be used" in said
    assert "a run stops (max_failures = 0.25)" in said
    assert "bad/2.tar: " in said
    level, said = found("good", "many/{00..38}.tar", "many/39.tar")
    assert level is Level.WARNING
    assert "of 7 samples of 6 shards 1 can't be used" in said
    assert found("bad/3.tar")[0] is Level.WARNING
    assert found("bad/2.tar")[0] is Level.FAILED
    assert found("good/0.tar")[0] is Level.WARNING
    many = CorpusSettings(url="many")
    assert [one.path for one in chosen(Corpus(many).shards(), many)] == ["00.tar", "20.tar", "39.tar"]


def test_marks_that_were_left_are_known_and_swept(place, small_corpus):
    recipe = parse_recipe(yaml.safe_load((place / "mine.yaml").read_text()) | {"modalities": {"metadata": {}}})
    store = Store(recipe.output)
    for name, age in (("old", 7200), ("new", 60)):
        store.create(f"{DOCTORS}{name}", b"")
        then = time.time() - age
        os.utime(place / f"out/deep/{DOCTORS}{name}", (then, then))
    fault = foreign(f"{DOCTORS}old")
    assert "`tokenloom doctor` left" in fault.what
    assert "`tokenloom gc`" in fault.way_out
    assert "what earlier doctors had left there is deleted (1)" in flat(said("doctor", "mine.yaml"))
    assert [entry.name for entry in store.list()] == [f"{DOCTORS}new"]


class Stuck(Store):
    """One whose network breaks once something is written."""

    def delete(self, path: str) -> None:
        if self.exists(path):
            raise StorageError("could not delete it", self.url, "Check it")


def test_what_is_left_is_named(tmp_path):
    (found,) = look_at_output(Stuck(tmp_path))
    (left,) = tmp_path.iterdir()
    assert found.level is Level.FAILED
    assert f"could not delete it; {left.name} is left there" in found.said
    assert "Delete it" in found.way_out
    with marked(Stuck(tmp_path)) as mark:
        assert mark
    assert f"{mark.name} is left there" in left_behind(Stuck(tmp_path), mark)[0].said


def test_gpus_that_are_wanted_and_lacking(place, monkeypatch):
    write(place, corpus="a.jpg", modalities={"depth": {"weights": "tiny"}})
    Image.new("RGB", (32, 32)).save(place / "a.jpg")
    stages = '[{"modalities": ["depth"], "num_gpus": 1}]'
    table = said("doctor", "mine.yaml", "--set", f"resources.stages={stages}", code=1)
    assert levels(table)["GPUs"] == "failed"
    monkeypatch.setenv("TOKENLOOM_DEVICE", "cpu")
    table = said("doctor", "mine.yaml", "--set", f"resources.stages={stages}", code=1)
    assert levels(table)["GPUs"] == "warning"
    assert "TOKENLOOM_DEVICE=cpu leaves them idle" in flat(table)
    assert "depth) and the least workers of all other stages don't fit" in flat(table)
    assert gpus.none_at_all(["depth"], explicit=False).level is Level.WARNING
    assert gpus.to_come(["depth"], explicit=True).level is Level.WARNING
    assert "num_gpus in resources.stages" in gpus.to_come(["depth"], explicit=False).way_out
    seen = {"torch": "2.0", "names": ["A", "A"], "free": [3 * GIB, 2 * GIB]}
    assert gpus.usable(json.dumps(seen), 2, GIB).said == "2 x A, 2.0 GiB free on the fullest"
    assert gpus.usable(json.dumps(seen), 2, 8 * GIB).level is Level.WARNING
    assert gpus.usable(json.dumps(seen), 4, GIB).level is Level.FAILED


# --- object storage ---------------------------------------------------------------------------------------------------


def denied(*operations: str, status: int = 403, code: str = "AccessDenied") -> list[Fault]:
    return [Fault(Kind.ERROR, operations, path=r"tokenloom-doctor|out/$", status=status, code=code)]


@pytest.mark.s3
@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ([], None),
        (denied("LIST"), "could not list it (PermissionError"),
        (denied("PUT"), "could not write it (PermissionError"),
        (denied("GET"), "could not read it (PermissionError"),
        (denied("DELETE"), "could not delete it (PermissionError"),
        (denied("PUT", status=501, code="NotImplemented"), "If-None-Match"),
        (denied("LIST", status=400, code="ExpiredToken"), "-> The credentials have expired: get new ones"),
        (denied("LIST", code="RequestTimeTooSkewed"), "-> The clocks of this machine and of the store differ"),
    ],
)
def test_rights_that_are_lacking_in_a_bucket(place, s3_url, s3_server, faults, told):
    with FaultyS3(s3_server.endpoint, faults) as proxy:
        options = f"storage_options={{endpoint_url: '{proxy.endpoint}'}}"
        words = ("doctor", "mine.yaml", "--output", f"{s3_url}/out", "--set", options)
        table = said(*words, code=int(told is not None))
    assert "the key that ends in loom, from the environment, at http://127.0.0.1:" in table
    assert levels(table)["output"] == ("ok" if told is None else "failed")
    assert (told or f"{s3_url}/out: may be listed") in flat(table)
    left = [entry.name for entry in Store(s3_url).list()]
    assert left == []  # nor where nothing may be deleted


@pytest.mark.s3
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"anon": True}, "none are used"),
        ({"key": "nobody-1234", "secret": "planted-secret"}, "the key that ends in 1234, from the recipe's"),
        ({"profile": "gone"}, "ProfileNotFound"),
    ],
)
def test_credentials_that_are_none_or_unknown(place, s3_server, s3_url, options, told):
    """Ceph's own answers."""
    if "moto" in s3_server.name:
        pytest.skip("moto lets everybody in")
    set_ = f"storage_options={json.dumps(options)}"
    table = said("doctor", "mine.yaml", "--output", f"{s3_url}/out", "--set", set_, code=1)
    assert told in table
    assert levels(table)["output"] == "failed"
    assert "planted-secret" not in table


class Overwriting(Store):
    """One that knows no If-None-Match."""

    def create(self, path: str, data: bytes) -> bool:
        self.replace(path, data)
        return True


def test_a_store_that_overwrites_is_refused(tmp_path):
    (found,) = look_at_output(Overwriting(tmp_path))
    assert found.level is Level.FAILED
    assert "overwritten" in found.said
    assert list(tmp_path.iterdir()) == []


# --- what is compared with figures ------------------------------------------------------------------------------------


def test_clocks():
    assert skew(100.0, 100.2, 100.9) == 0  # theirs is cut to whole seconds
    assert skew(100.0, 99.0, 100.5) == 0
    assert skew(100.0, 111.0, 112.0) == 10
    assert skew(100.0, 80.0, 90.0) == -10
    assert [clock(by, "nodes", "its").level for by in (0.5, -4, 6, -400)] == [
        *[Level.OK] * 2,
        Level.WARNING,
        Level.FAILED,
    ]
    assert clock(6.2, "nodes", "the head's").said == "6 s ahead of the head's"


@pytest.mark.process
def test_a_clock_that_is_wrong_is_told_by_the_outputs_files(place):
    """The process has another time than the disk's kernel."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    if library is None:
        pytest.skip("libfaketime isn't installed")
    words = [sys.executable, "-m", "tokenloom.pipeline.cli", "doctor", "mine.yaml"]
    faked = {"LD_PRELOAD": str(library), "FAKETIME": "-60s", "NO_FAKE_STAT": "1", "COLUMNS": "200"}
    table = subprocess.run(words, env={**os.environ, **faked}, stdout=subprocess.PIPE, text=True, timeout=120).stdout
    assert levels(table)["clock (output)"] == "warning"
    assert "s behind the output's" in table


def test_room():
    assert disk(SESSION, "/tmp", 4 * GIB, 100 * GIB).level is Level.FAILED
    assert disk("output", "/tmp", 4 * GIB, 100 * GIB).level is Level.WARNING
    assert disk("output", "/tmp", 50 * GIB, 100 * GIB).level is Level.OK
    assert shared_memory(64 * 2**20, 64 * 2**20, 0).level is Level.WARNING
    assert shared_memory(8 * GIB, 8 * GIB, 9 * GIB).level is Level.WARNING
    assert shared_memory(8 * GIB, 8 * GIB, 2 * GIB).level is Level.OK


def test_versions():
    here = dict.fromkeys(needed(["mine"]), "1") | {"Python": "3.11.2", "mine": "1"}
    assert {"tokenloom", "ray", "numpy", "torch", "mine"} <= set(here)
    assert compare(here, here, ["mine"]).level is Level.OK
    assert compare(here, {**here, "Python": "3.11.9", "numpy": "2"}, ["mine"]).level is Level.WARNING
    for name, other in {"tokenloom": "", "mine": "2", "Python": "3.12.1"}.items():
        found = compare(here, {**here, name: other}, ["mine"])
        assert found.level is Level.FAILED
        assert f"{name} {other or 'is lacking'}, and {here[name]} here" in found.said
        assert found.way_out == f"Install there: {name} {here[name]}"


def test_a_hundred_nodes_are_a_few_rows():
    nodes = {f"n{n:03}": [ok("disk", f"{n} GiB", n), ok("output", "well")] for n in range(95)}
    nodes |= {f"n{n:03}": [ok("disk", f"{n} GiB", n), failed("output", "no")] for n in range(95, 100)}
    assert [(row.finding.said, row.where) for row in grouped(nodes)] == [
        ("0 GiB", "all 100 nodes"),
        ("well", "95 of 100 nodes: n000, n001, n002 and 92 more"),
        ("no", "5 of 100 nodes: n095, n096, n097 and 2 more"),
    ]
    assert Row(ok("a", "b")).where == ""


def test_the_folder_of_the_corpus_is_left_alone(place, small_corpus):
    before = sorted(path.name for path in small_corpus.iterdir())
    shutil.copytree(small_corpus, place / "corpus")
    said("doctor", "mine.yaml", "--corpus", place / "corpus")
    assert sorted(path.name for path in (place / "corpus").iterdir()) == before
