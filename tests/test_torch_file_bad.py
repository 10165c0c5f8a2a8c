"""Broken and hostile PyTorch and safetensors files are refused in one line.

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
import tarfile

import numpy as np
import pytest
import torch_files as build
from torch_files import (
    PLAIN,
    calling,
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

from jaxvid.core.torch_file import TorchFileError, load

HARM = "/tmp/jaxvid-hostile-pickle-ran"
TOUCH = f"touch {HARM}"


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
    "legacy": (LEGACY, "broken or cut off"),
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
