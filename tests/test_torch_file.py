"""The reader of PyTorch files: sound files come out exactly, broken and hostile ones in one line.

The hostile files try to create the file named by HARM; the test fails if it ever appears.
"""

import argparse
import builtins
import gzip
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch_files as build
from torch_files import calling, entry, name, number, numbers, program, pt, storage, tensor, text

from jaxvid.core.torch_file import Parameter, TorchFileError, load, save_pt

GOLDENS = Path(__file__).parent / "goldens"
HARM = "/tmp/jaxvid-hostile-pickle-ran"
TOUCH = f"touch {HARM}"


def write(folder, data: bytes, suffix=".pt"):
    path = folder / f"file{suffix}"
    path.write_bytes(data)
    return path


# --- sound files -----------------------------------------------------------------------------


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


PLAIN = {
    "nested": {"a": [1, (2.5, None)], 3: {"b": True}},
    "ordered": OrderedDict([("x", 1), ("y", OrderedDict())]),
    "numbers": [-1, 2**40, -(2**200), 1e300, 1 + 2j],
    "bytes": [b"", b"\x00\xff", bytearray(b"ab")],
    "sets": [{1, 2}, frozenset("ab")],
    "text": "ünïcode\n",
    "numpy": [np.float64(0.5), np.int64(3), np.bool_(True), np.dtype("float32")],
    "tuple keys": {(1, "a"): 2},
}


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


# --- safetensors and shards ------------------------------------------------------------------


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


# --- large files -----------------------------------------------------------------------------

BIG = 5 * 2**30  # bytes; past what 32-bit zip fields hold
MEASURE = """
import sys, psutil
from jaxvid.core.torch_file import load
before = psutil.Process().memory_info().rss
tree = load(sys.argv[1])
w = tree["w"] if isinstance(tree, dict) else tree
assert w.nbytes == 5 * 2**30 and w[-1, -1] == 7 and w[0, 0] == 0, w[-1, -1]
print((psutil.Process().memory_info().rss - before) / 2**20)
"""


def sparse_pt(path):
    """A zip64 .pt of BIG bytes that takes almost no disk: the storage is a hole but its end."""
    count = BIG // 4
    source = storage(count=count)
    pickled = program(
        b"}" + text("w") + tensor(source, size=(count // 1024, 1024), stride=(1024, 1)) + b"s"
    )

    def header(entry_name, size, offset):
        from zlib import crc32

        crc = crc32(pickled) if size == len(pickled) else 0
        big = size > 2**32 - 1
        extra = struct.pack("<HHQQ", 1, 16, size, size) if big else b""
        short = 2**32 - 1 if big else size
        common = struct.pack(
            "<5H3I2H", 45, 0, 0, 0, 0, crc, short, short, len(entry_name), len(extra)
        )
        local = b"PK\3\4" + common + entry_name + extra
        central = b"PK\1\2" + struct.pack("<H", 45) + common
        return local, central + struct.pack("<3H2I", 0, 0, 0, 0, offset) + entry_name + extra

    with open(path, "wb") as file:
        central = b""
        for entry_name, size in ((b"a/data.pkl", len(pickled)), (b"a/data/0", BIG)):
            local, record = header(entry_name, size, file.tell())
            central += record
            file.write(local)
            if size == BIG:
                file.seek(BIG - 4, os.SEEK_CUR)
                file.write(struct.pack("<f", 7))
            else:
                file.write(pickled)
        start = file.tell()
        end = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2, 2, len(central), start)
        locator = struct.pack("<IQI", 0, start + len(central), 1)
        tail = struct.pack("<4H2IH", 0, 0, 2, 2, len(central), 2**32 - 1, 0)
        file.write(central + b"PK\6\6" + end + b"PK\6\7" + locator + b"PK\5\6" + tail)


def sparse_safetensors(path):
    header = {"w": entry(0, BIG, (BIG // 4096, 1024))}
    with open(path, "wb") as file:
        file.write(build.safetensors(header))
        file.seek(BIG - 4, os.SEEK_CUR)
        file.write(struct.pack("<f", 7))


@pytest.mark.parametrize(
    ("make", "file"), [(sparse_pt, "a.pt"), (sparse_safetensors, "a.safetensors")]
)
def test_large_files_need_little_memory(tmp_path, make, file):
    make(tmp_path / file)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / file)]
    grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(grown) < 20  # MB


# --- broken and hostile files ----------------------------------------------------------------

GOOD = build.tensor_file()


def nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    return pt(program(opening * depth + b"N" + closing * depth))


def laughs(levels: int) -> bytes:
    """A list of ten times the list before, by memo: 10**levels values in a few bytes."""
    body = b"]q\x00"
    for level in range(levels):
        body += b"0](" + (b"h" + bytes([level])) * 10 + b"eq" + bytes([level + 1])
    return pt(program(body))


def hash_bomb() -> bytes:
    """A tuple key that takes 2**60 steps to hash."""
    return pt(program(b"})" + b"2\x86" * 60 + b"Ns"))


def reduce_chain() -> bytes:
    inner = build.call(name("builtins", "getattr"), name("os", "path"), text("system"))
    return pt(program(build.call(inner, text(TOUCH))))


def with_entry(**changes) -> bytes:
    return pt(program(tensor()), **changes)


def duplicated() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return pt(program(tensor()), {"data/0": b"\0" * 24, "data.pkl": b"N."})


def shifted(find: bytes, put: bytes) -> bytes:
    assert find in GOOD
    return GOOD.replace(find, put)


def central_offset() -> bytes:
    """The central directory points each entry past the end of the file."""
    data = bytearray(GOOD)
    at = data.find(b"PK\1\2")
    while at >= 0:
        data[at + 42 : at + 46] = struct.pack("<I", 2**31)
        at = data.find(b"PK\1\2", at + 4)
    return bytes(data)


def ustar() -> bytes:
    import io

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return out.getvalue()


LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"\x80\x02M\xe9\x03." + b"}."

HOSTILE = {
    # names that are not allowed
    "os.system": (calling(os.system, TOUCH), r"asks for posix\.system"),
    "builtins.eval": (calling(builtins.eval, "1", protocol=3), r"asks for builtins\.eval"),
    "builtins.exec protocol 0": (calling(builtins.exec, "1", protocol=0), r"__builtin__\.exec"),
    "protocol 4 stack global": (calling(os.system, TOUCH, protocol=4), r"posix\.system"),
    "protocol 5": (calling(os.system, TOUCH, protocol=5), r"posix\.system"),
    "inside a dict": (calling(os.system, TOUCH, wrap=lambda c: {"w": [c]}), r"posix\.system"),
    "subprocess": (calling(subprocess.check_call, ["true"], protocol=3), r"subprocess\.check_call"),
    "open": (calling(open, HARM, "w"), r"asks for _?io\.open"),
    "getattr chain": (reduce_chain(), r"asks for builtins\.getattr"),
    "inst": (pt(b"(S'x'\nios\nsystem\n."), r"asks for os\.system"),
    "obj": (pt(program(b"(" + name("os", "system") + text(TOUCH) + b"o")), r"os\.system"),
    "torch itself": (pt(program(name("torch", "load"))), r"asks for torch\.load"),
    "dotted name": (pt(program(name("collections", "OrderedDict.fromkeys"))), "fromkeys"),
    "numpy object": (calling(np.load, "x"), r"asks for numpy\.load"),
    "module": (pt(program(name("torch.nn.modules.linear", "Linear"))), r"linear\.Linear"),
    "extension": (pt(program(b"\x82\x01")), "opcode EXT1 is not allowed"),
    "buffers": (pt(b"\x80\x05\x97."), "opcode NEXT_BUFFER is not allowed"),
    "text id": (pt(b"Pstorage\n."), "opcode PERSID is not allowed"),
    "long name": (pt(program(name("a" * 10**6, "b"))), "asks for aaaa"),
    # what is made of allowed names
    "calls a value": (pt(program(text("x") + b")R")), "not a function"),
    "keeps a function": (pt(program(name("collections", "OrderedDict"))), "OrderedDict itself"),
    "keeps a storage": (pt(program(storage())), "Storage itself"),
    "attributes": (pt(program(tensor() + b"}b")), "sets attributes of a ndarray"),
    "memory": (pt(program(build.call(name("builtins", "bytes"), number(2**40)))), "broken"),
    "bytearray": (pt(program(build.call(name("builtins", "bytearray"), number(2**40)))), "broken"),
    "BytesIO": (pt(program(build.call(name("io", "BytesIO"), number(2**40)))), "broken"),
    "object array": (pt(program(build.call(name("numpy", "dtype"), text("O8")))), "only numbers"),
    "keywords": (pt(b"\x80\x04" + name("collections", "OrderedDict") + b")}N\x8cs\x92."), "broken"),
    # bombs
    "deep lists": (nested(100_000, b"]", b"a"), "more than 100 deep"),
    "deep tuples": (nested(100_000, b"", b"\x85"), "more than 100 deep"),
    "billion laughs": (laughs(30), "unfolds to more than"),
    "hash bomb": (hash_bomb(), "a tuple as a key"),
    "cycle": (pt(program(b"]q\x00h\x00a")), "contains itself"),
    "huge string": (pt(program(b"X\xff\xff\xff\x7fabc")), "pickle is broken"),
    "huge bytes": (pt(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f."), "pickle is broken"),
    "huge long": (pt(program(b"\x8b\xff\xff\xff\x7f")), "pickle is broken"),
    "million marks": (pt(program(b"(" * 10**6)), "left over"),
    # pickles that are broken
    "empty pickle": (pt(b""), "pickle is broken"),
    "no stop": (pt(b"\x80\x02N"), "pickle is broken"),
    "two values": (pt(program(b"NN")), "left over"),
    "trailing": (pt(program(b"N") + b"N"), "left over"),
    "underflow": (pt(program(b"a")), "pickle is broken"),
    "no mark": (pt(program(b"Nt")), "pickle is broken"),
    "memo gap": (pt(program(b"h\x05")), "pickle is broken"),
    "unknown opcode": (pt(program(b"\xff")), "pickle is broken"),
    "list as key": (pt(program(b"}]Ns")), "a list as a key"),
    "odd items": (pt(program(b"}(Nu")), "pickle is broken"),
    "protocol 9": (pt(b"\x80\x09\xfeN."), "pickle is broken"),
    # tensors
    "negative size": (build.tensor_file(size=(-2, 3)), "negative numbers"),
    "negative offset": (build.tensor_file(offset=-1), "negative numbers"),
    "negative stride": (build.tensor_file(offset=5, stride=(-3, -1)), "negative numbers"),
    "huge size": (build.tensor_file(size=(2**62, 2**62)), "past the end"),
    "huge empty": (build.tensor_file(size=(0, 2**62), stride=(1, 1)), "pickle is broken"),
    "huge expanded": (build.tensor_file(size=(2**40,), stride=(0,)), "repeats its storage"),
    "offset": (build.tensor_file(offset=1), "past the end of its storage of 6"),
    "stride": (build.tensor_file(stride=(4, 1)), "past the end of its storage of 6"),
    "more strides": (build.tensor_file(stride=(3, 1, 1)), "two equal tuples"),
    "many axes": (build.tensor_file(size=(1,) * 99, stride=(1,) * 99), "not made of numbers"),
    "no storage": (build.tensor_file(source=text("x")), "something else than a typed storage"),
    "conjugated": (build.tensor_file(more=b"}" + text("conj") + b"\x88s"), "conjugated"),
    "sparse": (pt(program(name("torch._utils", "_rebuild_sparse_tensor"))), "rebuild_sparse"),
    "missing data": (with_entry(entries={}), "'0' is missing from the archive"),
    "short data": (with_entry(entries={"data/0": b"\0" * 20}), "has 20 bytes, the pickle says 24"),
    "path as key": (build.tensor_file(source=storage("../../etc/passwd")), "is missing"),
    "negative count": (build.tensor_file(source=storage(count=-6)), "no size"),
    "huge count": (build.tensor_file(source=storage(count=2**62)), "the pickle says"),
    "two types": (
        pt(program(b"](" + tensor() + tensor(storage(kind="IntStorage")) + b"e")),
        "two types or sizes",
    ),
    "unknown id": (pt(program(numbers((1, 2)) + b"Q")), "an unknown way"),
    # archives
    "big endian": (with_entry(byteorder=b"big"), "byte order is b'big'"),
    "duplicated": (duplicated, "two entries 'archive/data.pkl'"),
    "compressed": (with_entry(compression=8), "compressed or encrypted"),
    "no pickle": (build.pt(b"N.").replace(b"data.pkl", b"dota.pkl"), "without a data.pkl"),
    "torchscript": (with_entry(entries={"constants.pkl": b"N."}), "TorchScript program"),
    "bad checksum": (shifted(b"FloatStorage", b"FloaxStorage"), "broken or truncated"),
    "bad header": (central_offset(), "broken or truncated"),
    "local header": (shifted(b"PK\x03\x04", b"PK\x03\x05"), "broken|no torch zip"),
    "empty zip": (b"PK\x05\x06" + b"\0" * 18, "without a data.pkl"),
    "only a magic": (b"PK\x03\x04", "broken or truncated"),
    # other files
    "empty": (b"", "it is empty"),
    "text": (b"hello world\n" * 100, "no torch zip file"),
    "web page": (b"<!DOCTYPE html><html>", "a web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "gzip": (gzip.compress(GOOD), "gunzip it first"),
    "legacy": (LEGACY, r"old format of torch < 1\.6.*torch\.save\(torch\.load"),
    "tar": (ustar(), r"tar format of torch < 0\.4"),
    "bare pickle": (pickle.dumps({"a": 1}), "bare pickle"),
    "zeros": (b"\0" * 5000, "no torch zip file"),
}


def refused(path, message):
    with pytest.raises(TorchFileError, match=message) as error:
        load(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and len(line) < len(str(path)) + 600
    assert not os.path.exists(HARM)


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_run_nothing_and_give_one_line(tmp_path, case):
    data, message = HOSTILE[case]
    refused(write(tmp_path, data() if callable(data) else data), message)


def test_a_giant_memo_index_costs_nothing(tmp_path):
    assert load(write(tmp_path, pt(program(b"Nr\xff\xff\xff\xff")))) is None


def test_truncated_files_give_one_line(tmp_path):
    for length in range(1, len(GOOD), 7):
        refused(write(tmp_path, GOOD[:length]), "broken|truncated|no torch zip")


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    random = np.random.default_rng(0)
    body = pickle.dumps({"config": PLAIN, "args": argparse.Namespace(a=1)}, 2)
    originals = [body, program(b"](" + tensor() + tensor() + b"e"), pickle.dumps(PLAIN, 4)]
    for i in range(600):
        data = bytearray(originals[i % 3])
        for at in random.integers(len(data), size=random.integers(1, 4)):
            data[at] = random.integers(256)
        try:
            load(write(tmp_path, pt(bytes(data))))
        except TorchFileError as error:
            assert "\n" not in str(error)
    assert not os.path.exists(HARM)


W = entry()
ZEROS = b"\0" * 24
SAFETENSORS = {
    "short": (b"\x01\0\0", "too few for its header"),
    "long header": (build.safetensors({"w": W}, ZEROS, length=10**9), "too few for its header"),
    "giant header": (build.safetensors({"w": W}, ZEROS, length=2**63), "too few for its header"),
    "short header": (build.safetensors({"w": W}, ZEROS, length=5), "not valid JSON"),
    "no JSON": (build.safetensors(b"hello"), "not valid JSON"),
    "not text": (build.safetensors(b"\xff\xfe{}"), "not valid JSON"),
    "a list": (build.safetensors([1]), "not a JSON object"),
    "deep JSON": (build.safetensors(b"[" * 10**5), "not valid JSON"),
    "twice": (build.safetensors(b'{"w": {}, "w": {}}'), "a name occurs twice"),
    "not described": (build.safetensors({"w": {"dtype": "F32"}}), "does not describe 'w'"),
    "overlap": (build.safetensors({"v": W, "w": entry(12, 36)}, ZEROS * 2), "overlaps"),
    "same range": (build.safetensors({"v": W, "w": W}, ZEROS), "overlaps"),
    "hole": (build.safetensors({"w": entry(8, 32)}, ZEROS * 2), "leaves a hole"),
    "past the end": (build.safetensors({"w": W}, ZEROS[1:]), "end at byte 24 of 23"),
    "rest": (build.safetensors({"w": W}, ZEROS + b"\0"), "end at byte 24 of 25"),
    "negative": (build.safetensors({"w": entry(-24, 0)}, ZEROS), "not as large as its shape"),
    "backwards": (build.safetensors({"w": entry(24, 0)}, ZEROS), "not as large as its shape"),
    "other size": (build.safetensors({"w": entry(shape=(2, 2))}, ZEROS), "not as large"),
    "huge shape": (build.safetensors({"w": entry(shape=(2**62, 2**62))}, ZEROS), "not as large"),
    "negative shape": (build.safetensors({"w": entry(shape=(-2, -3))}, ZEROS), "has the shape"),
    "text shape": (build.safetensors({"w": entry(shape=("2", 3))}, ZEROS), "has the shape"),
    "unknown type": (build.safetensors({"w": entry(dtype="F4")}, ZEROS), "unknown type 'F4'"),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_broken_safetensors_give_one_line(tmp_path, case):
    data, message = SAFETENSORS[case]
    refused(write(tmp_path, data, ".safetensors"), message)


INDICES = {
    "no JSON": ("{", "not valid JSON"),
    "no map": ({"metadata": {}}, "no weight_map"),
    "empty map": ({"weight_map": {}}, "no weight_map"),
    "missing shard": ({"weight_map": {"w": "b.safetensors"}}, "shard b.safetensors: there is no"),
    "path": ({"weight_map": {"w": "../a.safetensors"}}, "no file beside it"),
    "absolute": ({"weight_map": {"w": "/etc/passwd"}}, "no file beside it"),
    "number": ({"weight_map": {"w": 3}}, "no file beside it"),
    "itself": ({"weight_map": {"w": "file.index.json"}}, "no kind of shard"),
    "missing tensor": ({"weight_map": {"x": "a.safetensors"}}, "1 tensors are not in"),
    "broken shard": ({"weight_map": {"w": "c.safetensors"}}, "shard c.safetensors: it is empty"),
}


@pytest.mark.parametrize("case", INDICES)
def test_broken_indices_give_one_line(tmp_path, case):
    content, message = INDICES[case]
    (tmp_path / "a.safetensors").write_bytes(build.safetensors({"w": W}, ZEROS))
    (tmp_path / "c.safetensors").write_bytes(b"")
    text = content if isinstance(content, str) else json.dumps(content)
    refused(write(tmp_path, text.encode(), ".index.json"), message)


def test_missing_files_and_folders(tmp_path):
    refused(tmp_path / "nowhere.pt", "no such file")
    refused(tmp_path, "a folder, not a file")
