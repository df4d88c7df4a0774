"""What a user gets wrong: one line that names the file, the key and the way out, exit code 2, and no Ray."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from math import nan
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import without_ray
from pydantic import BaseModel
from tokenloom.labelers.plugins.registry import LABELER_GROUP, TOKENIZER_GROUP, find, find_labeler, names
from tokenloom.pipeline import run as running
from tokenloom.pipeline.cli import main
from tokenloom.pipeline.plan.mistakes import MistakesError, checked
from tokenloom.pipeline.plan.recipe import Recipe, RecipeError, load_recipe
from tokenloom.tokenizers.contract.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

Path_ = tuple[str | int, ...]
Refused = Callable[..., str]


@pytest.fixture
def refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Runs a recipe by the command line's entry point, which has to refuse it: the line it says. content: a dict, or
    the text of the file; {CORPUS} stands for a folder of photographs."""
    monkeypatch.chdir(tmp_path)

    def never() -> None:
        raise AssertionError("it got as far as starting Ray")

    monkeypatch.setattr(running, "start_ray", never)

    def run(content: Mapping[str, Any] | str | bytes, *words: str, lines: int = 1) -> str:
        text = content if isinstance(content, str | bytes) else yaml.safe_dump(content, sort_keys=False)
        data = text.encode() if isinstance(text, str) else text
        (tmp_path / "mine.yaml").write_bytes(data.replace(b"{CORPUS}", str(corpus).encode()))
        monkeypatch.setattr(sys, "argv", ["tokenloom", "run", "./mine.yaml", *words])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr().err
        assert end.value.code == 2, said
        assert said.startswith("tokenloom: mine.yaml") or said.startswith("tokenloom: --"), said
        assert said.count("\n") == lines, said
        return said

    return run


WHOLE: dict[str, Any] = {
    "corpus": {"url": "{CORPUS}", "format": "auto", "image": "jpg", "key": "key", "fields": ["a"]},
    "output": "out",
    "modalities": {
        "rgb": {
            "labeler": "rgb",
            "params": {},
            "batch_size": 3,
            "keep": "tokens",
            "tokenizer": {
                "name": "vq",
                "params": {},
                "fit": {"steps": 3, "perceptual": {"weights": "tiny", "blocks": [1]}},
            },
        },
        "caption": {},
    },
    "environments": {"rgb": {"pip": ["some-thing==1.0"]}},
    "vocabulary": None,
    "accept_license": ["MIT"],
    "resources": {"workers": 2, "stages": [{"modalities": ["rgb"]}]},
    "storage_options": {},
}


def wrong_values(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Any]:
    """Values that the JSON schema forbids at a node: of each other type, beyond its bounds, none of its names."""
    nodes = [resolved(one, schema) for one in node.get("anyOf", [node])]
    types = {one.get("type") for one in nodes} | {
        "string" if "enum" in one or "const" in one else None for one in nodes
    }
    if "integer" in types:
        types.add("number")
        yield 0.5
    of_type = {"string": "some words", "number": 3, "boolean": True, "array": [{}], "object": {"surely": {"none": 1}}}
    yield from (value for name, value in of_type.items() if name not in types and name != "boolean")
    if "null" not in types:
        yield None
    for one in nodes:
        for bound, step in (("minimum", -1), ("exclusiveMinimum", 0), ("maximum", 1), ("exclusiveMaximum", 0)):
            if bound in one:
                yield one[bound] + step
        if "enum" in one or "const" in one:
            yield "some words"
        if one.get("type") == "number":
            yield nan
        if one.get("minItems"):
            yield []
        if "items" in one:
            yield from ([value] for value in wrong_values(resolved(one["items"], schema), schema))
    if not types & {"boolean"}:
        yield True


def resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def all_keys(node: Mapping[str, Any], schema: Mapping[str, Any], path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every key of a recipe with its node; a modality and a stage stand for all."""
    for option in (resolved(one, schema) for one in node.get("anyOf", [node])):
        for name, below in option.get("properties", {}).items():
            yield (*path, name), below
            yield from all_keys(resolved(below, schema), schema, (*path, name))
        if isinstance(option.get("additionalProperties"), Mapping):
            yield from all_keys(resolved(option["additionalProperties"], schema), schema, (*path, "rgb"))
        if option.get("type") == "array":
            yield from all_keys(resolved(option["items"], schema), schema, (*path, 0))


SCHEMA = Recipe.model_json_schema()
KEYS = dict(all_keys(SCHEMA, SCHEMA))
SHORT = {
    ("corpus",): (str, list),
    ("modalities",): (list,),
    ("modalities", "rgb", "tokenizer"): (str,),
    ("modalities", "rgb"): (type(None),),
    ("modalities", "rgb", "tokenizer", "fit"): (bool,),
    ("accept_license",): (str,),
}
"""Types that a recipe may have beside those of the schema."""


def with_value(content: Any, path: Path_, value: Any) -> Any:
    """A copy of a recipe, with the value at the path."""
    if not path:
        return value
    if isinstance(path[0], int):
        return [with_value((content or [None])[0], path[1:], value)]
    return {**(content or {}), path[0]: with_value((content or {}).get(path[0]), path[1:], value)}


def test_the_schema_is_walked_in_full():
    assert len(KEYS) > 50
    assert ("resources", "stages", 0, "num_gpus") in KEYS
    assert ("modalities", "rgb", "tokenizer", "fit", "perceptual", "blocks") in KEYS


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_a_wrong_value_of_any_key_is_one_line_that_names_it(refused, path):
    values = [v for v in wrong_values(KEYS[path], SCHEMA) if not isinstance(v, SHORT.get(path, ())) or v == [{}]]
    assert values or path[-1] in ("storage_options", "params"), KEYS[path]
    for value in values:
        said = refused(with_value(WHOLE, path, value))
        key = ".".join(map(str, path))
        assert re.match(rf"tokenloom: mine\.yaml(:\d+)?: {re.escape(key)}[.:]", said), (value, said)


HOMES = sorted({path[:-1] for path in KEYS}, key=str)


@pytest.mark.parametrize("home", HOMES, ids=lambda path: ".".join(map(str, path)) or "top")
def test_an_unknown_key_anywhere_tells_the_known_ones(refused, home):
    if home == ("modalities",):
        return
    known = [path[-1] for path in KEYS if path[:-1] == home]
    said = refused(with_value(WHOLE, (*home, "surely_none"), 3))
    assert re.match(r"tokenloom: mine\.yaml:\d+: ([\w.]+\.)?surely_none: unknown key; the keys here are ", said)
    assert all(str(key) in said for key in known), said
    near = f"{known[0]}x"
    assert f"{near}: unknown key; did you mean '{known[0]}'?" in refused(with_value(WHOLE, (*home, near), 3))


def test_a_key_in_the_wrong_place_is_told_where_it_goes(refused, shared):
    case = (shared / "cases/recipes/26_format_top.yaml").read_text()
    assert "mine.yaml:5: format: unknown key; it goes under corpus" in refused(case)
    assert "it goes under views" in refused(with_value(WHOLE, ("modalities", "rgb", "min_scale"), 1))
    assert "it goes to the top" in refused(with_value(WHOLE, ("corpus", "max_failures"), 1))


# --- parameters -------------------------------------------------------------------------------------------------------


LABELERS = [name for name in names(LABELER_GROUP) if find_labeler(name).Params.model_fields]
TOKENIZERS = {"vq": "rgb", "patch_codebook": "rgb", "palette": "color_palette", "wordpiece": "caption"}
"""With a modality whose labels each takes."""


def refuses_each_parameter(refused: Refused, where: Path_, params: type[BaseModel], content: dict[str, Any]) -> None:
    schema = params.model_json_schema()
    for name, node in schema["properties"].items():
        for value in wrong_values(resolved(node, schema), schema):
            with pytest.raises(MistakesError) as caught:
                checked(params, {name: value})
            (mistake,) = caught.value.found
            assert mistake.key.split(".")[0] in (name, ""), value  # "": of several together
    values = {name: {"surely": "none"} for name in schema["properties"]}
    said = refused(with_value(content, where, {**values, "surely_none": 1}), lines=len(values) + 1)
    path = ".".join(map(str, where))
    assert f"{path}.surely_none: unknown key; the keys here are {', '.join(values)}" in said
    assert all(f": {path}.{name}" in said for name in values), said


@pytest.mark.parametrize("name", LABELERS)
def test_a_wrong_parameter_of_any_labeler_is_named(refused, name):
    content = {"corpus": "{CORPUS}", "output": "out", "weights": "tiny", "modalities": {name: {}}}
    refuses_each_parameter(refused, ("modalities", name, "params"), find_labeler(name).Params, content)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_wrong_parameter_of_a_tokenizer_is_named(refused, name):
    where = ("modalities", TOKENIZERS[name], "tokenizer")
    content = {"corpus": "{CORPUS}", "output": "out", "modalities": {where[1]: {"tokenizer": {"name": name}}}}
    refuses_each_parameter(refused, (*where, "params"), find(TOKENIZER_GROUP, name, Tokenizer).Params, content)


BASE = {"corpus": "{CORPUS}", "output": "out"}


@pytest.mark.parametrize(
    ("modalities", "key", "said"),
    [
        ({"rgb_": {}}, "modalities.rgb_", "did you mean rgb"),
        ({"rgb": {"labeler": "nowhere:Class"}}, "modalities.rgb.labeler", "no module 'nowhere'"),
        ({"rgb": {"tokenizer": "vqq"}}, "modalities.rgb.tokenizer", "did you mean vq"),
        ({"rgb": {"tokenizer": "wordpiece"}}, "modalities.rgb.tokenizer", "takes labels of the kind text, not image"),
        ({"caption": {"keep": "both", "tokenizer": {"fit": True}}}, "modalities.caption.tokenizer", "leave out fit"),
        ({"rgb": {"weights": "some/where"}}, "modalities.rgb.weights", "takes no weights"),
        ({"dinov2": {"weights": "./none"}}, "modalities.dinov2.weights", "no such file"),
        ({"picky": {"labeler": "odd_labelers:Picky"}}, "modalities.picky", "not with 3 patches"),
        ({"canny_edge": {"params": {"low": 9, "high": 3}}}, "modalities.canny_edge.params", "must not be above high"),
        ({"foreground": {}}, "modalities.foreground", "add `dinov2: {}`"),
        ({"two": {"labeler": "rgb"}}, "modalities.two", "makes rgb, not 'two'"),
        ({"of classes": {}}, "modalities", "can't be a modality's name"),
        (
            {"thirds": {"labeler": "odd_labelers:Thirds", "tokenizer": "patch_codebook"}},
            "modalities.thirds.tokenizer",
            "class ids have no average: choose another tokenizer",
        ),
        ({"boxless": {"labeler": "odd_labelers:Boxless"}}, "modalities.boxless", "give the labeler `on = 'image'`"),
        *(
            ({"rgb": {"tokenizer": {"name": "vq", "params": params}}}, "modalities.rgb.tokenizer.params", said)
            for params, said in [
                ({"encoder": "vit_none"}, "vit_none"),
                ({"quantizer": "fsq", "codes": 7}, "give fsq its levels"),
                ({"levels": [3, 3]}, "levels are for the quantizer fsq"),
                ({"tokens": 4}, "gives one per cell"),
            ]
        ),
    ],
)
def test_what_a_labeler_or_tokenizer_refuses_is_found_before_ray(refused, modalities, key, said):
    line = refused({**BASE, "modalities": modalities})
    assert re.match(rf"tokenloom: mine\.yaml:\d+: {re.escape(key)}: ", line), line
    assert said in line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("corpus", "nowhere/at/all", "nothing is there"),
        ("corpus", "{CORPUS}/{a,b", "a { without its }"),
        ("corpus", "a.tar::b.tar", "write a list"),
        ("corpus", "a\0b", "no path or URL has a NUL"),
        ("corpus", "http://", "names no place: write http://, the bucket or host"),
        ("corpus", ["photos", "s3://"], "names no place"),
        ("output", "s3:///", "names no place"),
        ("corpus", {"url": ["{CORPUS}", "surely://x"]}, "surely"),
        ("corpus", {"url": "{CORPUS}", "image": "gif"}, "holds no .gif images"),
        ("output", "", "folder or URL"),
        ("output", "surely://x", "surely"),
        ("output", "a::b://c", "::"),
        ("vocabulary", "none.json", "no such file"),
        (
            "resources",
            {"stages": [{"modalities": ["rgb", "depth"]}]},
            "depth aren't among the recipe's modalities, rgb",
        ),
        ("resources", {"stages": [{"modalities": ["rgb"], "min_workers": 3, "max_workers": 2}]}, "min_workers = 3"),
        ("fit", {"units": 0}, "greater than or equal to 1"),
    ],
)
def test_a_name_that_leads_nowhere_is_found_before_ray(refused, key, value, said):
    line = refused({**BASE, "modalities": {"rgb": {}, "caption": {}}, key: value})
    assert re.match(rf"tokenloom: mine\.yaml:\d+: {key}[.\w]*: ", line), line
    assert said in line


def test_a_modality_that_the_fitting_sample_lacks_is_named_with_the_way_out(corpus, tmp_path, monkeypatch, capsys):
    content = {"corpus": str(corpus), "output": "out", "modalities": {"nowhere": {"labeler": "odd_labelers:Nowhere"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tokenloom", "run", "mine.yaml"])
    with without_ray(), pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    way_out = "`keep: labels`, both with --replace nowhere"
    assert re.fullmatch(rf"tokenloom: modalities\.nowhere\.tokenizer: .*{way_out}\n", said), said


# --- the text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("02_dup_top", r"mine\.yaml:7: modalities: is there twice, in line 3 too"),
        ("06_latin1", r"mine\.yaml: not a text in UTF-8, .*: save it as UTF-8"),
        ("29_mod_list_dicts", r"mine\.yaml:3: modalities: .*without a dash, as `rgb: {}`"),
    ],
)
def test_a_text_that_says_no_recipe_is_refused(refused, shared, case, said):
    assert re.search(said, refused((shared / f"cases/recipes/{case}.yaml").read_bytes()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("corpus: a\ncorpus: b\n", "mine.yaml:2: corpus: is there twice, in line 1 too"),
        ("modalities:\n  rgb: {params: {a: 1, a: 1}}\n", "mine.yaml:2: modalities.rgb.params.a: is there twice"),
        ("corpus: a\noutput: b\nmodalities: [rgb, rgb]", "mine.yaml:3: modalities: rgb is there twice"),
        ("corpus: [\n", "mine.yaml:2: not YAML"),
        ("corpus:\n\t- a\n", "mine.yaml:2: not YAML"),
        ("a: 1\n---\nb: 2\n", "mine.yaml:2: not YAML"),
        ("a: !!python/object:os.system {}", "mine.yaml:1: not YAML"),
        ("a: {[1]: 2}", "mine.yaml:1: not YAML"),
        ("", "a recipe is a mapping with the keys corpus, output"),
        ("- a\n", "a recipe is a mapping with the keys corpus, output"),
        ("corpus: a\noutput: b\nmodalities: &m\n  rgb: {params: *m}\n", "mine.yaml:4: modalities.rgb.params"),
        ("corpus: a\noutput: b\nmodalities:\n  1: {}\n", "mine.yaml:4: modalities.1"),
        ("corpus: ü".encode("utf-16-le"), "UTF-16 with a byte order mark"),
    ],
)
def test_every_other_text_that_says_no_recipe_too(refused, text, said):
    assert said in refused(text)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("views.size", "write key.key=value"),
        ("seed=[", "quote it"),
        ("views.size=big", "--set views.size=big: views.size: input should be a valid integer"),
        ("output.x=3", "--set output.x=3: output is a value, without keys"),
        ("resources.stages.0.num_cpus=3", "resources.stages is a list, without keys; set all of it"),
        ("modalities.rgb.params.low=3", "--set modalities.rgb.params.low=3: modalities.rgb.params.low: unknown key"),
        ("modalities.rgb.tokenizer.params.surely=3", "modalities.rgb.tokenizer.params.surely: unknown key"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_given(refused, override, said):
    content = with_value(WHOLE, ("modalities", "rgb", "tokenizer"), "vq")
    assert said in refused(content, "--set", override)
    assert "--output: output: " in refused(content, "--output", "surely://x")
    assert "--corpus: corpus" in refused(content, "--corpus", "nowhere")


def test_what_is_meant_is_read(shared, tmp_path):
    (tmp_path / "mine.yaml").write_bytes((shared / "cases/recipes/05_utf16.yaml").read_bytes())
    assert load_recipe(tmp_path / "mine.yaml").corpus.url == "../photos"
    (tmp_path / "mine.yaml").write_text("\ufeffcorpus: a\noutput: b\nmodalities: {rgb: {tokenizer: vq}}\n", "utf-8")
    tokenizer = (
        load_recipe(tmp_path / "mine.yaml", ["modalities.rgb.tokenizer.params.codes=64"]).modalities["rgb"].tokenizer
    )
    assert tokenizer is not None
    assert (tokenizer.name, tokenizer.params) == ("vq", {"codes": 64})
    fit = load_recipe(
        tmp_path / "mine.yaml", ["modalities.rgb.tokenizer.fit=true", "modalities.rgb.tokenizer.fit.steps=7"]
    )
    assert fit.modalities["rgb"].tokenizer.fit.steps == 7  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="learning_rate: input should be greater than 0"):
        load_recipe(tmp_path / "mine.yaml", ["modalities.rgb.tokenizer.fit.learning_rate=-1e-3"])
