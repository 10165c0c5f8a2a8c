"""Converts public PyTorch weights to our checkpoints, and back.

python scripts/convert.py --model=fdm --source=ema_0.9999_550000.pt --output=checkpoints/carla
python scripts/convert.py --model=fdm --source=checkpoints/carla --output=ema.pt --reverse
python scripts/convert.py --model=wan_dit --source longlive_base.pt lora.pt --output=longlive
python scripts/convert.py --model=cosmos_multiview --source=iter_000005000/model --output=multiview
"""

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvid.core import checkpoint, program, torch_file
from jaxvid.core.files import sha256
from jaxvid.cosmos import files as cosmos
from jaxvid.cosmos import text_keys as cosmos_text
from jaxvid.fdm import keys as fdm
from jaxvid.metrics import keys as metrics
from jaxvid.wan import dit_files, umt5_keys, vae_keys


class Converter(NamedTuple):
    """The two directions for one kind of model."""

    convert: Callable  # (sources) -> (parameters, info for the checkpoint)
    revert: Callable  # (parameters, info) -> what the .pt file holds
    settings: Callable | None = None  # (that, info) -> what the file does not tell, for a .json


def lpips(net: str) -> Converter:
    return Converter(
        lambda sources: (metrics.lpips_to_ours(torch_file.load_all(sources), net), {}),
        lambda params, info: metrics.lpips_to_theirs(params, net),
    )


def wan_dit(names: Sequence[str]) -> Converter:
    return Converter(functools.partial(dit_files.convert, names=names), dit_files.revert)


def wan_lora(names: Sequence[str]) -> Converter:
    return Converter(functools.partial(dit_files.convert_lora, names=names), dit_files.revert_lora)


CONVERTERS = {
    "fdm": Converter(fdm.convert, fdm.revert),
    "lpips_alex": lpips("alex"),
    "lpips_vgg": lpips("vgg"),
    "i3d": Converter(
        lambda sources: (metrics.i3d_to_ours(torch_file.load_all(sources)), {}),
        lambda params, info: metrics.i3d_to_theirs(params),
    ),
    "wan_vae": Converter(vae_keys.convert, vae_keys.revert),
    "umt5": Converter(umt5_keys.convert, umt5_keys.revert),
    "cosmos_text": Converter(cosmos_text.convert, cosmos_text.revert),
    **{
        kind: Converter(
            functools.partial(cosmos.convert, kind=kind), cosmos.revert, cosmos.needed_settings
        )
        for kind in cosmos.KINDS
    },
    "wan_dit": wan_dit(dit_files.GENERATOR),
    "wan_dit_ema": wan_dit(dit_files.EMA),
    "wan_dit_critic": wan_dit(dit_files.CRITIC),
    "wan_lora": wan_lora(dit_files.LORAS),
    "wan_lora_critic": wan_lora(dit_files.CRITIC_LORAS),
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; argv: None is the command line's."""
    parser = program.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, choices=sorted(CONVERTERS))
    parser.add_argument(
        "--source", required=True, nargs="+", action="extend", type=Path, metavar="FILE"
    )
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--reverse", action="store_true", help="from our checkpoint to a .pt file")
    parser.add_argument("--part", default="", help="with --reverse: a subtree, e.g. ema/0.9999")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    return parser.parse_args(argv)


def check_output(output: Path, overwrite: bool) -> None:
    """Raises ValueError if `output` is taken or cannot be written, before any work is done."""
    taken = output.is_file() or (output.is_dir() and any(output.iterdir()))
    if taken and not overwrite:
        raise ValueError(f"--output={output} is there already: choose another or add --overwrite")
    parent = next(folder for folder in output.absolute().parents if folder.exists())
    if not os.access(parent, os.W_OK) or not parent.is_dir():
        raise ValueError(f"--output={output} cannot be written: {parent} is no writable folder")


def contents(source: Path) -> list[Path]:
    """A file, or the files of a folder of torch.distributed.checkpoint."""
    return sorted(source.iterdir()) if source.is_dir() else [source]


def convert(model: str, sources: Sequence[Path], output: Path, overwrite: bool) -> str:
    """Writes a checkpoint whose note holds the hashes of the files it comes from."""
    files = [file for source in sources for file in contents(source)]
    hashes = [{"file": file.name, "sha256": sha256(file)} for file in files]
    params, info = CONVERTERS[model].convert(sources)
    info = {"model": model, **info, "sources": hashes}
    checkpoint.save(output, params, info, overwrite=overwrite)
    return f"wrote the checkpoint {output}"


def revert(model: str, sources: Sequence[Path], output: Path, part: str = "") -> str:
    """Writes a checkpoint of ours as the .pt file it once came from."""
    if len(sources) != 1:
        raise ValueError(f"--reverse takes one checkpoint, got {len(sources)} of --source")
    if output.suffix not in (".pt", ".pth") or output.is_dir():
        raise ValueError(f"--output={output} has to be a .pt or .pth file with --reverse")
    info = checkpoint.read_info(sources[0])
    if info.get("model", info.get("kind")) != model:
        found = info.get("model", info.get("kind"))
        raise ValueError(f"{sources[0]} is a checkpoint of {found!r}, not of {model!r}")
    params = checkpoint.restore(sources[0], part=part)
    converter = CONVERTERS[model]
    content = converter.revert(params, info)
    torch_file.save_pt(output, content)
    settings = converter.settings(content, info) if converter.settings else {}
    if not settings:
        return f"wrote {output}"
    beside = output.with_suffix(".json")
    beside.write_text(json.dumps(settings, indent=2) + "\n")
    return f"wrote {output}, and {beside} with the settings that it has to be read with"


def main(argv: Sequence[str] | None = None) -> int:
    """Checks paths, converts in one direction or the other; returns the exit code."""
    args = parse(argv)
    sources = [source.expanduser() for source in args.source]
    output = args.output.expanduser()
    for source in sources:
        folder = args.model in cosmos.KINDS and source.is_dir()
        if not args.reverse and not folder and not source.is_file():
            raise ValueError(f"--source={source}: there is no such file")
    check_output(output, args.overwrite)
    if args.reverse:
        print(revert(args.model, sources, output, args.part))
    else:
        print(convert(args.model, sources, output, args.overwrite))
    return 0


if __name__ == "__main__":
    sys.exit(program.main(main))
