"""Reports: pages about runs and datasets, which a browser opens from disk and which load nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html import unescape
from io import StringIO
from pathlib import Path

import fsspec
import pytest
from in_process import said
from rich.console import Console
from tokenloom.pipeline.commands import report as reports
from tokenloom.pipeline.commands.progress import RunProgress
from tokenloom.pipeline.commands.report import ReportError, RunReport
from tokenloom.pipeline.engine.tally import Tally
from tokenloom.pipeline.storage.store import StorageError, Store
from weaving import digests

HOSTILE = "<img src=x onerror=alert(1)>"


def tables(page: str) -> dict[str, list[list[str]]]:
    """The rows of each section's tables, by its heading."""
    found = {}
    for section in re.findall(r"<section>(.*?)</section>", page, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
        cells = [[unescape(cell) for cell in re.findall(r"<td[^>]*>([^<]*)</td>", row)] for row in rows]
        found[re.findall(r"<h2>(.*?)</h2>", section)[0]] = [row for row in cells if row]
    return found


@pytest.fixture(scope="module")
def made(small_corpus: Path, tmp_path_factory) -> tuple[Path, str]:
    """A folder with a dataset, made with a report, and what that printed."""
    folder = tmp_path_factory.mktemp("reports")
    photos = Path(shutil.copytree(small_corpus, folder / "photos"))
    (photos / f"{HOSTILE}.jpg").write_bytes((photos / "coffee.jpg").read_bytes()[:900])
    (photos / "cut 2.jpg").write_bytes((photos / "coffee.jpg").read_bytes()[:800])
    words = ["run", "quickstart", "--corpus", photos, "--set", 'modalities=["color_palette", "metadata"]']
    words += ["--set", "units.samples=4"]
    output = said(*words, "--output", folder / "out", "--report", folder / "run.html")
    said(*words, "--output", folder / "without")
    said("status", folder / "out", "--report", folder / "status.html")
    return folder, output


def test_a_run_tells_where_its_time_went_and_the_dataset_is_the_same(made):
    folder, output = made
    assert digests(folder / "out") == digests(folder / "without")
    lines = output.splitlines()
    (start,) = (place for place, line in enumerate(lines) if line.startswith("took "))
    assert re.fullmatch(r"workers of +units +seconds .*model.*", lines[start + 1])
    assert [line.split()[:2] for line in lines[start + 2 : start + 4]] == [
        ["read", "2"],
        ["color_palette+metadata", "2"],
    ]
    assert re.search(r"^models of color_palette\+metadata: color_palette \d+%, metadata \d+%$", output, re.MULTILINE)
    assert lines[-1].startswith("8 samples in 2 units, 2 modalities; 4 labels quarantined -> ")


def test_the_page_of_a_run(made):
    page = (made[0] / "run.html").read_text()
    found = tables(page)
    assert list(found) == ["Modalities", "Where time goes", "Labelers", "Slowest units", "Quarantine"]
    assert [row[:2] + row[-1:] for row in found["Modalities"]] == [
        ["color_palette", "8", "2"],
        ["metadata", "8", "2"],
    ]
    assert [row[:3] for row in found["Where time goes"]][:2] == [
        ["read", "2", "8"],
        ["color_palette+metadata", "2", "8"],
    ]
    assert {row[0] for row in found["Labelers"]} == {"color_palette", "metadata"}
    assert len(found["Slowest units"]) == 4
    assert [(modality, count) for modality, count, *_ in found["Quarantine"]] == [
        ("color_palette", "2"),
        ("metadata", "2"),
    ]
    assert HOSTILE in found["Quarantine"][0] or "cut 2" in found["Quarantine"][0]
    assert "8 samples in 2 units" in page
    assert 'http-equiv="refresh"' not in page  # it is done


def test_the_page_of_a_dataset_tells_as_much_as_its_output_does(made):
    found = tables((made[0] / "status.html").read_text())
    assert list(found) == ["Modalities", "Quarantine"]
    assert [row[:5] for row in found["Modalities"]] == [
        [name, "2", "8", "100%", "2"] for name in ("color_palette", "metadata")
    ]
    told = said("status", made[0] / "out")
    assert re.search(r"^quarantined: 4 labels of color_palette, metadata: .*BadImage", told, re.MULTILINE)


@pytest.mark.parametrize("name", ["run", "status"])
def test_it_runs_nothing_and_loads_nothing(made, name, chromium, tmp_path):
    page = (made[0] / f"{name}.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in page
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr", "--dump-dom"]
    flags += [f"--user-data-dir={tmp_path}", "--disable-dev-shm-usage", "--disable-background-networking"]
    shown = subprocess.run(
        [chromium, *flags, (made[0] / f"{name}.html").as_uri()], capture_output=True, text=True, timeout=60
    )
    assert tables(shown.stdout) == tables(page)
    assert not re.findall("Content Security Policy|Refused to", shown.stderr)


def test_it_grows_with_the_run_and_does_not_end_it(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(reports.time, "monotonic", lambda: clock[0])
    report = RunReport(str(tmp_path / "r.html"), str(tmp_path / "out"), {})
    read = (tmp_path / "r.html").read_text
    assert "listing the corpus" in read()
    assert 'http-equiv="refresh"' in read()
    tally, table = Tally("out", {}, units=1, samples=3), reports.Section("Modalities", ["modality"], [["rgb"]])
    report.labelled(tally, table, "")
    assert "3 samples in 1 unit so far" in read()
    tally.samples = 5
    report.labelled(tally, table, "2 min")
    assert "3 samples" in read()  # not so often
    clock[0] += 6
    report.labelled(tally, table, "2 min")
    assert "5 samples in 1 unit so far, 2 min left" in read()

    def full(self: Store, path: str, data: bytes, content_type: str) -> None:
        raise StorageError("no space left", self.url)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "replace", full)
        clock[0] += 6
        report.labelled(tally, table, "1 min")
    assert report.problem == f"{tmp_path}: no space left"
    report.ended(tally, table, ["stopped: no space left"])
    assert "stopped: no space left" in read()
    assert not report.problem


def test_it_tells_what_a_run_does_before_its_first_unit(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(reports.time, "monotonic", lambda: clock[0])
    report = RunReport(str(tmp_path / "r.html"), str(tmp_path / "out"), {})
    progress = RunProgress(Console(file=StringIO()), 0, report)
    read = (tmp_path / "r.html").read_text
    assert "starting" in read()
    progress.say("fitting the tokenizer of rgb")
    assert "fitting the tokenizer of rgb" in read()
    clock[0] += 6
    progress.fitting("rgb", 1, 6)
    assert "fitting rgb, round 2 of 6" in read()
    with pytest.raises(ValueError, match="no such"), reports.stop_told(report):
        raise ValueError("no such corpus")
    assert "stopped: no such corpus" in read()


@pytest.mark.s3
def test_a_browser_shows_one_in_object_storage(s3_url):
    RunReport(f"{s3_url}/r.html", f"{s3_url}/out", {})
    found = fsspec.filesystem("s3").info(f"{s3_url}/r.html")
    assert found["ContentType"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("out/page.html", "that is in the dataset"),
        ("link/page.html", "that is in the dataset"),
        ("pages/", "name a file that ends in .html, as pages/report.html"),
        ("recipe.yaml", "name a file that ends in .html, as recipe.yaml.html"),
        ("", "name a file that ends in .html, as report.html"),
    ],
)
def test_where_no_report_can_lie(target, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    with pytest.raises(ReportError, match=reason):
        RunReport(target, "out", {})
    (tmp_path / "nobody").touch()
    with pytest.raises(StorageError, match="nobody"):
        RunReport("nobody/page.html", "out", {})


def test_a_note_is_no_phase():
    """What a run waits for doesn't take the place of what it does."""
    progress = RunProgress(Console(file=StringIO()), 0)
    progress.say("labelling")
    progress.note("waiting for a node")
    assert [name for name, _ in progress.phases()] == ["starting", "labelling"]


def test_a_run_that_fails_says_so_on_its_page(made):
    folder, _ = made
    words = ["--corpus", folder / "photos", "--set", 'modalities=["color_palette"]', "--set", "max_failures=0"]
    said("run", "quickstart", *words, "--output", folder / "failing", "--report", folder / "failing.html", code=1)
    page = (folder / "failing.html").read_text()
    assert "stopped: 2 of 8 labels failed, more than max_failures = 0 allows" in page
    assert 'http-equiv="refresh"' not in page
