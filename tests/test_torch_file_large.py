"""Files of weights larger than memory is used for: read in place."""

import os
import struct
import subprocess
import sys

import pytest
import torch_files as build
from torch_files import entry, program, storage, tensor, text

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
