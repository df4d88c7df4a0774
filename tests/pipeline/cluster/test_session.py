"""Where a run finds Ray, and what its workers find in the working directory."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
import yaml
from tokenloom import open_dataset
from tokenloom.pipeline.cluster.session import EngineError, check_address

HELPERS = Path(__file__).parents[2] / "helpers"


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_where_nothing_answers_is_named_at_once(form):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = form.format(f"127.0.0.1:{server.getsockname()[1]}")
        check_address(address)
    with pytest.raises(EngineError, match=rf"RAY_ADDRESS is {address}, and nothing answers there .*unset it"):
        check_address(address)


@pytest.mark.parametrize("address", ["local", "auto", "anyscale://somewhere"])
def test_what_names_no_port_is_left_to_ray(address):
    check_address(address)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the tests' command line begins in its folder there")
def test_nothing_in_the_working_directory_takes_the_place_of_a_module(command_line, corpus_folder, tmp_path):
    """And no other cluster of this machine is taken for ours; a plugin beside them is found, and what is relative means
    the working directory. (`colorsys` is what Ray's workers have not imported by themselves.)"""
    for name in ("random", "types", "colorsys"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "beside.py").write_text(
        "import colorsys\nfrom odd_labelers import MeanColour\nclass Beside(MeanColour):\n    pass\n"
    )
    shutil.copy(HELPERS / "odd_labelers.py", tmp_path)
    modality = {"labeler": "beside:Beside", "keep": "labels"}
    content = {"corpus": "corpus", "output": "out", "modalities": {"mean_colour": modality}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    folder = Path(os.environ["RAY_TMPDIR"]) / "other"
    (folder / "ray").mkdir(parents=True)
    (folder / "ray/ray_current_cluster").write_text("127.0.0.1:1")
    process = command_line.start("run", "mine.yaml", PYTHONSAFEPATH="1", RAY_TMPDIR=str(folder))
    command_line.end(process)
    assert open_dataset(str(tmp_path / "out")).modalities["mean_colour"] is not None
