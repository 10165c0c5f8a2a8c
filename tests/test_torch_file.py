"""The reader and writer of PyTorch and safetensors files: sound files come out exactly."""

import argparse
import json
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch_files as build
from torch_files import (
    PLAIN,
    entry,
    name,
    number,
    numbers,
    program,
    pt,
    storage,
    tensor,
    text,
    write,
)

from jaxvid.core.torch_file import Parameter, TorchFileError, load, save_pt

GOLDENS = Path(__file__).parent / "goldens"


def test_views_strides_and_shared_storages(tmp_path):
    body = text("t") + tensor(offset=1, size=(2, 2), stride=(1, 2)) + text("all") + tensor()
    loaded = load(write(tmp_path, pt(program(b"}(" + body + b"u"))))
    np.testing.assert_array_equal(loaded["t"], [[1, 3], [2, 4]])
    assert loaded["t"].dtype == np.float32
    assert np.shares_memory(loaded["t"], loaded["all"])
    with pytest.raises(ValueError, match="read-only"):
        loaded["all"][0] = 1


TYPES = {
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
def test_types(tmp_path, kind, module):
    values = np.array([0, 1, 0, 1, 1, 1], TYPES[kind])
    body = program(tensor(storage(kind=kind, module=module)))
    loaded = load(write(tmp_path, pt(body, {"data/0": values.tobytes()})))
    assert loaded.dtype == TYPES[kind]
    np.testing.assert_array_equal(loaded, values.reshape(2, 3))


def test_untyped_storages_and_float8(tmp_path):
    source = storage(kind="UntypedStorage", module="torch.storage", count=6)
    hooks = build.call(name("collections", "OrderedDict"))
    parts = [source, number(0), numbers((6,)), numbers((1,)), b"\x89", hooks]
    body = build.call(
        name("torch._utils", "_rebuild_tensor_v3"), *parts, name("torch", "float8_e4m3fn")
    )
    values = np.arange(6).astype(ml_dtypes.float8_e4m3fn)
    loaded = load(write(tmp_path, pt(program(body), {"data/0": values.tobytes()})))
    assert loaded.dtype == ml_dtypes.float8_e4m3fn and loaded.tobytes() == values.tobytes()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("case", PLAIN)
def test_plain_values_in_every_protocol(tmp_path, case, protocol):
    loaded = load(write(tmp_path, pt(pickle.dumps(PLAIN[case], protocol))))
    assert loaded == PLAIN[case]
    assert type(loaded) is type(PLAIN[case])


@pytest.mark.parametrize("protocol", range(6))
def test_namespaces_become_dicts(tmp_path, protocol):
    config = argparse.Namespace(T=1000, names=["a"], inner=argparse.Namespace(x=None))
    loaded = load(write(tmp_path, pt(pickle.dumps({"config": config}, protocol))))
    assert loaded == {"config": {"T": 1000, "names": ["a"], "inner": {"x": None}}}


def test_torch_values_become_plain(tmp_path):
    size = build.call(name("torch", "Size"), numbers((2, 3)))
    device = build.call(name("torch", "device"), text("cuda"), number(1))
    body = program(b"](" + size + name("torch", "bfloat16") + device + b"e")
    assert load(write(tmp_path, pt(body))) == [(2, 3), np.dtype(ml_dtypes.bfloat16), "cuda:1"]


def test_parameters_and_empty_tensors(tmp_path):
    hooks = build.call(name("collections", "OrderedDict"))
    parameter = build.call(name("torch._utils", "_rebuild_parameter"), tensor(), b"\x88", hooks)
    empty = tensor(storage("1", 0), size=(0, 4), stride=(4, 1))
    scalar = tensor(storage(), offset=5, size=(), stride=())
    body = program(b"](" + parameter + empty + scalar + b"e")
    entries = {"data/0": struct.pack("<6f", *range(6)), "data/1": b""}
    loaded = load(write(tmp_path, pt(body, entries)))
    assert [a.shape for a in loaded] == [(2, 3), (0, 4), ()] and loaded[2] == 5


def test_the_folder_in_the_archive_may_have_any_name(tmp_path):
    assert load(write(tmp_path, pt(program(tensor()), root="ema_0.9999"), ".pth")).shape == (2, 3)


SAVED = {
    "state_dict": OrderedDict(
        a=np.arange(6, dtype=np.float32).reshape(2, 3).T,
        b=np.array(1.5, ml_dtypes.bfloat16),
        c=np.zeros((0, 2), np.int64),
        d=np.arange(4).astype(">i4"),
        e=np.arange(4).astype(ml_dtypes.float8_e5m2),
        f=np.array([True, False]),
    ),
    "config": {
        "T": None,
        "ok": True,
        "lr": 1e-4,
        "s": "ü",
        "l": [1, -(2**70)],
        "t": (),
        "n": 2**31,
    },
    0: np.float32(0.5),
}


def little(array):
    return array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array


def same(a, b):
    if isinstance(b, np.ndarray):
        return a.dtype == little(b).dtype and a.shape == b.shape and (a == b).all()
    if isinstance(b, dict):
        return list(a) == list(b) and type(a) is type(b) and all(same(a[k], b[k]) for k in b)
    return a == b


def test_saves_what_it_loads(tmp_path):
    save_pt(tmp_path / "a.pt", SAVED)
    assert same(load(tmp_path / "a.pt"), SAVED)
    save_pt(tmp_path / "b.pt", {"w": Parameter(np.ones(2))})
    assert load(tmp_path / "b.pt")["w"].tolist() == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]


@pytest.mark.parametrize("value", [object(), {"x": np.array(["a"])}, [np.datetime64(1, "s")], {1j}])
def test_refuses_to_save_other_values(tmp_path, value):
    with pytest.raises(ValueError, match=r"cannot be written|no tensors of type"):
        save_pt(tmp_path / "a.pt", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parity
def test_torch_reads_what_we_save(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {k: v for k, v in SAVED["state_dict"].items()}
    wrapped = {k: Parameter(v) if k in "ab" else v for k, v in tensors.items()}
    save_pt(tmp_path / "a.pt", {**SAVED, "state_dict": OrderedDict(wrapped)})
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert loaded["config"] == SAVED["config"] and loaded[0] == 0.5
    for key, array in tensors.items():
        value = loaded["state_dict"][key]
        assert isinstance(value, torch.nn.Parameter) == (key in "ab")
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        assert flat.tobytes() == little(array).tobytes()
        assert tuple(value.shape) == array.shape


@pytest.mark.parity
def test_we_read_what_torch_saves(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "base": base,
        "view": base[1:3, ::2].T,
        "bf16": base.to(torch.bfloat16),
        "f8": base.to(torch.float8_e4m3fn),
        "u16": torch.arange(3).to(torch.uint16),
        "complex": torch.tensor([1 + 2j]),
        "parameter": torch.nn.Parameter(base),
        "expanded": torch.ones(1).expand(5, 3),
        "size": base.shape,
        "dtype": torch.float16,
        "args": argparse.Namespace(a=1),
        "module": torch.nn.BatchNorm1d(3).state_dict(),
    }
    optimizer = torch.optim.AdamW([state["parameter"]])
    state["parameter"].sum().backward()
    optimizer.step()
    state["optimizer"] = optimizer.state_dict()
    for protocol in (2, 3, 4, 5):
        torch.save(state, tmp_path / "a.pt", pickle_protocol=protocol)
        loaded = load(tmp_path / "a.pt")
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                raw = value.detach().contiguous().view(torch.uint8).numpy()
                assert loaded[key].shape == value.shape and loaded[key].tobytes() == raw.tobytes()
        assert np.shares_memory(loaded["view"], loaded["base"])
        assert loaded["size"] == (4, 6) and loaded["dtype"] == np.float16
        assert loaded["args"] == {"a": 1} and loaded["module"]["running_var"].tolist() == [1, 1, 1]
        assert loaded["optimizer"]["state"][0]["exp_avg"].shape == (4, 6)


@pytest.mark.parity
def test_torch_formats_that_are_not_read(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(
        TorchFileError, match=r"old format of torch < 1\.6.*torch\.save\(torch\.load"
    ):
        load(tmp_path / "old.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(TorchFileError, match="TorchScript program"):
        load(tmp_path / "script.pt")


def test_safetensors(tmp_path):
    from safetensors.numpy import save_file

    arrays = {k: v for k, v in SAVED["state_dict"].items() if k not in "de"}
    arrays["a"] = np.ascontiguousarray(arrays["a"])
    save_file(arrays, tmp_path / "a.safetensors", metadata={"format": "pt"})
    loaded = load(tmp_path / "a.safetensors")
    assert all(same(loaded[key], array) for key, array in arrays.items())
    assert len(loaded) == len(arrays)


def test_safetensors_types(tmp_path):
    header = {
        "f8": entry(0, 2, (2,), "F8_E4M3"),
        "bf": entry(2, 6, (2, 1), "BF16"),
        "none": entry(6, 6, (0, 3)),
    }
    data = b"\x38\x40" + np.array([1, 2], ml_dtypes.bfloat16).tobytes()
    loaded = load(write(tmp_path, build.safetensors(header, data), ".safetensors"))
    assert loaded["f8"].astype(float).tolist() == [1, 2]
    assert loaded["bf"].astype(float).tolist() == [[1], [2]]
    assert loaded["none"].shape == (0, 3)


def test_sharded_index(tmp_path):
    for i in range(2):
        data = build.safetensors({f"w{i}": entry()}, np.full(6, i, np.float32).tobytes())
        (tmp_path / f"m-{i}.safetensors").write_bytes(data)
    save_pt(tmp_path / "m-2.bin", {"w2": np.full(6, 2)})
    files = {"w1": "m-1.safetensors", "w0": "m-0.safetensors", "w2": "m-2.bin"}
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": files}))
    loaded = load(index)
    assert list(loaded) == ["w1", "w0", "w2"]
    assert [float(a.flat[0]) for a in loaded.values()] == [1, 0, 2]
