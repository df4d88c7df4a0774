import subprocess
import sys
from importlib import metadata

import pytest
from tokenloom.labelers.contract.labeler import Labeler
from tokenloom.labelers.networks.extras import naming_extras
from tokenloom.labelers.plugins import registry
from tokenloom.labelers.plugins.registry import (
    LABELER_GROUP,
    TOKENIZER_GROUP,
    RegistryError,
    describe_labelers,
    find,
    find_labeler,
    names,
)

PLUGIN = '''
from tokenloom.labelers.contract.kinds import Vector
from tokenloom.labelers.contract.labeler import Labeler, Modality

class Half(Labeler):
    """Half of nothing."""
    makes = (Modality("half", Vector(2)),)
    def label(self, batch):
        return {}

class NoLabeler:
    pass
'''


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != ""])
    return tmp_path


def test_every_registered_labeler_is_a_labeler_that_makes_its_name():
    assert set(names(LABELER_GROUP)) >= {"rgb", "caption", "dinov2", "foreground", "ocr", "caption_embedding"}
    for name in names(LABELER_GROUP):
        assert issubclass(find_labeler(name), Labeler)


def test_two_modalities_of_one_labeler_find_the_same_class():
    assert find_labeler("dinov2") is find_labeler("dinov2_global")


def test_names_of_tokenizers_are_listed_without_importing_them():
    assert "wordpiece" in names(TOKENIZER_GROUP)


def test_an_unknown_name_is_answered_with_the_nearest_and_the_way_to_an_own_class():
    with pytest.raises(RegistryError, match=r"'dinov3'.*dinov2.*module:Class"):
        find_labeler("dinov3")
    with pytest.raises(RegistryError, match=r"there are .*caption, .*rgb"):
        find_labeler("zzzzzz")


def test_a_class_in_the_working_directory(working_directory):
    (working_directory / "plugin_half.py").write_text(PLUGIN)
    assert find_labeler("plugin_half:Half").__name__ == "Half"
    with pytest.raises(RegistryError, match="NoLabeler isn't a Labeler"):
        find_labeler("plugin_half:NoLabeler")
    with pytest.raises(RegistryError, match="has no class 'Missing'"):
        find_labeler("plugin_half:Missing")


def test_the_working_directory_shadows_no_installed_package(working_directory):
    (working_directory / "json").mkdir()
    (working_directory / "plugin_shadow.py").write_text(PLUGIN)
    find_labeler("plugin_shadow:Half")
    assert sys.path[-1] == str(working_directory)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module:Half", "no module 'no_such_module'"),
        ("tokenloom.nowhere:Half", "no module 'tokenloom.nowhere'"),
        ("../evil:Half", "isn't a module's dotted name"),
        (":Half", "isn't a module's dotted name"),
    ],
)
def test_a_module_that_is_not_there(working_directory, reference, message):
    with pytest.raises(RegistryError, match=message):
        find_labeler(reference)


def test_a_failing_import_names_what_to_install(working_directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    (working_directory / "plugin_ocr.py").write_text("import rapidocr\n")
    (working_directory / "plugin_other.py").write_text("import surely_not_installed\n")
    (working_directory / "plugin_name.py").write_text("from json import surely_no_name\n")
    with pytest.raises(RegistryError, match=r"pip install 'tokenloom\[ocr\]'"):
        find_labeler("plugin_ocr:Any")
    with pytest.raises(RegistryError, match="install the package that provides 'surely_not_installed'"):
        find_labeler("plugin_other:Any")
    with pytest.raises(RegistryError, match=r"importing plugin_name failed.*surely_no_name"):
        find_labeler("plugin_name:Any")


def test_optional_packages_name_their_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"tokenloom\[hub\]"), naming_extras():
        import transformers  # noqa: F401


def test_two_packages_that_register_one_name_are_told_apart(monkeypatch):
    two = [metadata.EntryPoint("depth", f"{module}:Depth", LABELER_GROUP) for module in ("one", "two")]
    monkeypatch.setattr(registry, "entries", lambda group: metadata.EntryPoints(two))
    with pytest.raises(RegistryError, match="write one:Depth or two:Depth"):
        find(LABELER_GROUP, "depth", Labeler)


def test_finding_one_labeler_imports_no_other_and_nothing_heavy():
    code = (
        "import sys; from tokenloom.labelers.plugins.registry import find_labeler; find_labeler('dinov2');"
        "print(*sorted({'tokenloom.labelers.ocr', 'transformers', 'torch', 'cv2', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_listing_says_what_each_labeler_makes_and_under_which_licence():
    rows = {row.reference: row for row in describe_labelers()}
    assert all(row.problem is None and row.summary for row in rows.values()), rows
    assert "dinov2_global" not in rows  # one row a class
    dinov2 = rows["dinov2"]
    assert dinov2.modalities == (("dinov2", "feature_map"), ("dinov2_global", "vector"))
    assert (dinov2.weights, dinov2.weights_licence, dinov2.on) == ("facebook/dinov2-base", "Apache-2.0", "view")
    assert rows["foreground"].requires == ("dinov2",)


def test_a_broken_plugin_does_not_hide_the_others(monkeypatch):
    two = [
        metadata.EntryPoint("broken", "no_such_module:Broken", LABELER_GROUP),
        metadata.EntryPoint("ocr", "tokenloom.labelers.ocr:Ocr", LABELER_GROUP),
    ]
    monkeypatch.setattr(registry, "entries", lambda group: metadata.EntryPoints(two))
    broken, ocr = describe_labelers()
    assert "no module 'no_such_module'" in (broken.problem or "")
    assert ocr.problem is None
