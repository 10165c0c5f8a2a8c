"""Files of torch < 1.6, which all models may come in."""

import base64

import numpy as np
import pytest

from jaxvid.core.torch_file import TorchFileError, load

# What torch 2.13 saves with _use_new_zipfile_serialization=False for
# {"a.weight": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(7)}.
LEGACY = base64.b64decode(
    "gAKKCmz8nEb5IGqoUBkugAJN6QMugAJ9cQAoWBAAAABwcm90b2NvbF92ZXJzaW9ucQFN6QNYDQAAAGxpdHRsZV9lbmRp"
    "YW5xAohYCgAAAHR5cGVfc2l6ZXNxA31xBChYBQAAAHNob3J0cQVLAlgDAAAAaW50cQZLBFgEAAAAbG9uZ3EHSwR1dS6A"
    "An1xAChYCAAAAGEud2VpZ2h0cQFjdG9yY2guX3V0aWxzCl9yZWJ1aWxkX3RlbnNvcl92MgpxAigoWAcAAABzdG9yYWdl"
    "cQNjdG9yY2gKRmxvYXRTdG9yYWdlCnEEWA4AAAA5NDkwMTA0NTIxOTQyNHEFWAMAAABjcHVxBksGTnRxB1FLAEsDSwKG"
    "cQhLAUsDhnEJiWNjb2xsZWN0aW9ucwpPcmRlcmVkRGljdApxCilScQt0cQxScQ1YAQAAAG5xDmgCKChoA2N0b3JjaApM"
    "b25nU3RvcmFnZQpxD1gOAAAAOTQ5MDA5NTkxNjgwMDBxEGgGSwFOdHERUUsAKSmJaAopUnESdHETUnEUdS6AAl1xAChY"
    "DgAAADk0OTAwOTU5MTY4MDAwcQFYDgAAADk0OTAxMDQ1MjE5NDI0cQJlLgEAAAAAAAAABwAAAAAAAAAGAAAAAAAAAAAA"
    "AAAAAIA/AAAAQAAAQEAAAIBAAACgQA=="
)


@pytest.fixture
def refused(tmp_path):
    """Loads bytes as a file and gives the line that refuses them."""

    def line(data: bytes) -> str:
        path = tmp_path / "old.pth"
        path.write_bytes(data)
        with pytest.raises(TorchFileError) as error:
            load(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
        return str(error.value)

    return line


def test_tensors_and_numbers(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(LEGACY)
    state = load(path)
    np.testing.assert_array_equal(state["a.weight"], [[0, 3], [1, 4], [2, 5]])
    assert state["n"] == 7


@pytest.mark.parametrize("kept", [15, 60, 200, 440, 480, len(LEGACY) - 1])
def test_files_that_are_cut_off(refused, kept):
    refused(LEGACY[:kept])


def test_no_code_is_run(refused):
    assert "eval" in refused(LEGACY.replace(b"collections\nOrderedDict", b"builtins\neval"))


def test_storages_as_long_as_they_say(refused):
    count = np.int64(6).tobytes()
    assert "not as long" in refused(LEGACY.replace(count, np.int64(5).tobytes()))


def test_other_writers(refused):
    big = LEGACY.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    assert "not little-endian" in refused(big)
    assert "protocol is not 1001" in refused(LEGACY.replace(b"M\xe9\x03.", b"M\xe8\x03."))


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "old.pth"
    for _ in range(400):
        data = bytearray(LEGACY)
        for at in random.integers(15, len(data), size=random.integers(1, 4)):
            data[at] = random.integers(256)
        path.write_bytes(data)
        try:
            load(path)
        except TorchFileError as error:
            assert "\n" not in str(error)
