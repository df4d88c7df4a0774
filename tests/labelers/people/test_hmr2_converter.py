import contextlib
import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.people.hmr2_converter import convert, read_lightning
from torch._utils import _rebuild_tensor_v2

TRACE = "TOKENLOOM_TEST_TRACE"


@pytest.fixture
def state():
    wide = torch.arange(24.0).reshape(4, 6)
    return {
        "backbone.last_norm.weight": torch.arange(6.0),
        "backbone.turned": wide.T,  # strides that aren't those of its shape
        "backbone.part": wide[1:3, 2:],  # a part of a storage
        "backbone.half": torch.tensor([0.5, -2], dtype=torch.float16),
        "backbone.scalar": torch.tensor(3.5),
        "smpl_head.init_cam": torch.ones(1, 3),
        "smpl.v_template": torch.rand(5, 3),
        "discriminator.D_conv1.weight": torch.rand(2, 2),
        "initialized": torch.tensor(True),
    }


@pytest.fixture
def configuration():
    """An object as yacs' CfgNode is, a dict with attributes, whose module is gone when the file is read."""
    module = types.ModuleType("gone_after_training")
    exec("class CfgNode(dict):\n    pass\nclass Names(list):\n    pass", module.__dict__)
    sys.modules[module.__name__] = module
    node = module.CfgNode(EMA=True, MODEL=module.CfgNode(IMAGE_SIZE=256), NAMES=module.Names(["a", "b"]))
    node.__dict__["__immutable__"] = True
    yield node
    sys.modules.pop(module.__name__, None)


def lightning(state, **more):
    return {"epoch": 35, "global_step": 1_000_000, "pytorch-lightning_version": "1.8.1", "state_dict": state, **more}


class Payload:
    """Pickled as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_keeps_the_networks_tensors_and_nothing_else(state, configuration, tmp_path):
    source, target = tmp_path / "epoch=35-step=1000000.ckpt", tmp_path / "hmr2.safetensors"
    optimiser = [{"state": {0: {"exp_avg": torch.rand(1000)}}, "param_groups": [{"betas": (0.9, 0.999)}]}]
    torch.save(lightning(state, hyper_parameters={"cfg": configuration}, optimizer_states=optimiser), source)
    del sys.modules["gone_after_training"]
    with pytest.raises(pickle.UnpicklingError, match="gone_after_training"):
        torch.load(source, weights_only=True)
    assert convert(source, target) == 6
    converted = load_file(target)
    wanted = {name: tensor for name, tensor in state.items() if name.startswith(("backbone.", "smpl_head."))}
    assert converted.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert converted[name].dtype == tensor.dtype
        assert torch.equal(converted[name], tensor), name
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, target.name]
    assert "gone_after_training" not in sys.modules


def test_other_protocols_of_pickle_are_read_too(state, configuration, tmp_path):
    for protocol in (2, 3, 4, 5):
        torch.save(lightning(state, cfg=configuration), tmp_path / "x.ckpt", pickle_protocol=protocol)
        assert len(read_lightning(tmp_path / "x.ckpt")) == 6


def payloads(trace):
    """Pickles that make the folder `trace` when Python's own unpickler reads them."""
    import functools
    import subprocess

    from torch._tensor import _rebuild_from_type_v2

    return {
        "os.mkdir": Payload(os.mkdir, trace),
        "os.system": Payload(os.system, f"mkdir {trace}"),
        "exec": Payload(exec, f"import os; os.mkdir({trace!r})"),
        "subprocess": Payload(subprocess.call, ["mkdir", trace]),
        "makedirs": Payload(os.makedirs, trace),
        "a partial": Payload(functools.partial(os.mkdir, trace)),
        "by torch": Payload(_rebuild_from_type_v2, os.mkdir, torch.Tensor, (trace,), {}),
        "lazily": Payload(map, os.mkdir, [trace]),
    }


NAMES = sorted(payloads("x"))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lazily"])
def test_the_payloads_do_work_on_those_who_trust_them(name, tmp_path):
    trace = tmp_path / "trace"
    with contextlib.suppress(Exception):
        pickle.loads(pickle.dumps(payloads(str(trace))[name]))
    assert trace.is_dir()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "a tensor's argument", "a dict's argument"])
def test_a_pickle_with_code_in_it_is_never_run(name, place, state, tmp_path):
    """Wherever it stands it becomes an inert object, or the file is refused."""
    source, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    payload = payloads(str(trace))[name]
    content = lightning(state)
    if place == "hyper_parameters":
        content["hyper_parameters"] = {"cfg": payload}
    elif place == "state_dict":
        content["state_dict"] = {"backbone.evil": payload, **state}
    elif place == "a tensor's argument":
        evil = Payload(_rebuild_tensor_v2, payload, 0, (1,), (1,), False, payload)
        content["state_dict"] = {"backbone.evil": evil, **state}
    else:
        content["callbacks"] = Payload(OrderedDict, [("key", payload)])
    torch.save(content, source)
    with contextlib.suppress(CheckpointError):
        assert "backbone.last_norm.weight" in read_lightning(source)
    assert not trace.exists()


def test_a_pickle_cannot_change_what_the_next_one_meets(state, tmp_path):
    """The opcode that sets attributes, on the objects that stand for names."""
    torch.save(lightning(state), tmp_path / "good.ckpt")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # attributes of an unknown class, by a state of two parts: None, {"__new__": 1, "append": 1}
        build = b"cnobody\nnothing\n(N(dS'__new__'\nI1\nsS'append'\nI1\nstb."
        archive.writestr("archive/data.pkl", build)
    (tmp_path / "evil.ckpt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match=r"evil\.ckpt"):
        read_lightning(tmp_path / "evil.ckpt")
    assert len(read_lightning(tmp_path / "good.ckpt")) == 6


def test_what_is_no_such_checkpoint_is_refused(state, tmp_path):
    path = tmp_path / "x.ckpt"
    with pytest.raises(CheckpointError, match=r"x\.ckpt: no such file"):
        read_lightning(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="isn't a whole checkpoint"):
        read_lightning(path)
    torch.save(lightning(state), path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="zip format"):
        read_lightning(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"not one that torch\.save wrote"):
        read_lightning(path)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="no state_dict"):
        read_lightning(path)
    torch.save(lightning({"model.weight": torch.ones(2)}), path)
    with pytest.raises(CheckpointError, match=r"no tensors named backbone\.\*, so it isn't a checkpoint of HMR2"):
        read_lightning(path)
    torch.save(lightning({**state, "backbone.ids": torch.arange(3)}), path)
    with pytest.raises(CheckpointError, match="LongStorage"):
        read_lightning(path)


def test_a_truncated_checkpoint_is_refused(state, tmp_path):
    path, target = tmp_path / "x.ckpt", tmp_path / "x.safetensors"
    torch.save(lightning(state), path)
    whole = path.read_bytes()
    for share in (0.3, 0.7, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match=r"x\.ckpt: isn't a whole checkpoint"):
            convert(path, target)
    number = torch.arange(6.0).numpy().tobytes()
    path.write_bytes(whole.replace(number, b"\1" + number[1:]))  # a flipped bit
    with pytest.raises(CheckpointError, match="CRC"):
        convert(path, target)
    assert not target.exists()


def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save(lightning({"backbone.x": torch.zeros(1).expand(10**9), "smpl_head.x": torch.zeros(1)}), path)
    with pytest.raises(CheckpointError, match="shape"):
        read_lightning(path)


def test_the_target_is_named_as_what_it_is(state, tmp_path):
    torch.save(lightning(state), tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        convert(tmp_path / "x.ckpt", tmp_path / "x.bin")
