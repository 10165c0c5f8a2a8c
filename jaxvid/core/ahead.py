"""Compiling for devices that are not there: does a program fit, which kernels and collectives run.

For GPUs this needs the CUDA build of JAX (`pip install "jaxvid[gpu]"`), for TPUs libtpu
(`"jaxvid[tpu]"`), and no such device. Nothing is run and nothing is autotuned, so this says nothing
about speed beyond the arithmetic that no machine can do without.
"""

import math
import os
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from jaxvid.core import flops
from jaxvid.core.hlo import collectives, kernels

H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 150754820096 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 } device_description_str: "NVIDIA H200"
"""
GPUS = {"h200": H200}
TPUS = ("v5e", "v5p", "v6e")
TRITON = "xla_gpu_enable_triton_gemm"  # its tiles need autotuning, which needs the GPU
HERE = "here"
RATES = {  # dense TFLOP/s of data sheets by type; float32 as JAX multiplies it by default
    "NVIDIA H200": {"bfloat16": 989.5, "float32": 494.7},  # TF32
    "TPU v5 lite": {"bfloat16": 197.0, "float32": 197.0},  # one pass in bfloat16, as all TPUs
    "TPU v5": {"bfloat16": 459.0, "float32": 459.0},
    "TPU v6 lite": {"bfloat16": 918.0, "float32": 918.0},
}


class Program(NamedTuple):
    """A jitted function and what it is called with: abstract arrays, and static arguments."""

    name: str
    function: Callable
    arguments: tuple
    mesh: Mesh


def target_devices(target: str) -> list:
    """The devices of a target, or stand-ins for them.

    Args:
      target: "h200:8" GPUs of one host, "h200:2x8" of two hosts, "v5e:2x4" chips, or "here".
    Raises:
      ValueError: an unknown target or shape, or a JAX that cannot compile for it.
    """
    if target == HERE:
        return jax.devices()
    name, _, shape = target.partition(":")
    known = ", ".join((*GPUS, *TPUS))
    if name not in (*GPUS, *TPUS):
        raise ValueError(f"unknown target {name!r}; known: {known}, or '{HERE}' for this machine")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){0,2}", shape):
        example = "h200:8 (or h200:2x8, hosts x GPUs)" if name in GPUS else f"{name}:2x4"
        raise ValueError(f"target {target}: {shape!r} is not a shape; write it as in {example}")
    jax.config.update("jax_platforms", "cpu")  # the devices of this machine have no part in it
    return list((_gpus if name in GPUS else _tpus)(name, shape))


def _gpus(name: str, shape: str):
    partitions = ("1x" * 2 + shape).split("x")[-3:]  # partitions, hosts, GPUs of a host
    config = {"topology": "x".join(partitions), "target_config": GPUS[name]}
    return _topology("cuda", name, "jax[cuda12]", "gpu", **config)


def _tpus(name: str, shape: str):
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else it looks for the cloud it is not in
    return _topology("tpu", f"{name}:{shape}", "jax[tpu]", "tpu")


def _topology(platform: str, name: str, needs: str, extra: str, **config):
    try:
        return topologies.get_topology_desc(platform=platform, topology_name=name, **config).devices
    except (RuntimeError, NotImplementedError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        hint = f"target {name} needs {needs} (pip install 'jaxvid[{extra}]')"
        raise ValueError(f"{hint} and a shape that exists: {text}") from None


def compile_report(program: Program) -> dict:
    """Compiles a program for the devices of its mesh; gigabytes are per device.

    The floor is the time that the products take at the devices' rate, shared out evenly; None
    where the rate is not known.
    """
    devices = program.mesh.devices.flat
    start = time.perf_counter()
    with jax.set_mesh(program.mesh):  # nothing can be computed in here
        traced = program.function.trace(*program.arguments)
        options = {TRITON: False} if devices[0].platform in ("gpu", "cuda") else None
        compiled = traced.lower().compile(options)
    seconds = time.perf_counter() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    work = flops.count(traced.jaxpr.jaxpr)
    return {
        "program": program.name,
        "devices": f"{program.mesh.size} x {devices[0].device_kind}",
        "mesh": {axis: n for axis, n in program.mesh.shape.items() if n > 1},
        "arguments_gb": _gigabytes(memory.argument_size_in_bytes),
        "outputs_gb": _gigabytes(memory.output_size_in_bytes),
        "donated_gb": _gigabytes(memory.alias_size_in_bytes),
        "temporary_gb": _gigabytes(memory.temp_size_in_bytes),
        "tflop": {kind: float(f"{work[kind] / 1e12:.6g}") for kind in ("bfloat16", "float32")},
        "floor_seconds": floor_seconds(work, devices[0].device_kind, program.mesh.size),
        "kernels": kernels(text) | {flops.BATCHED: work[flops.BATCHED]},
        "collectives": collectives(text),
        "compile_seconds": round(seconds, 1),
    }


def floor_seconds(work, kind: str, devices: int) -> float | None:
    """Seconds of FLOPs by type at the rates of a kind of device, on all of them at once."""
    rates = RATES.get(kind)
    if rates is None:
        return None
    return float(f"{sum(work[k] / rate for k, rate in rates.items()) / 1e12 / devices:.4g}")


def _gigabytes(size: int) -> float:
    return round(size / 1e9, 3)


def resident_gb(report: dict) -> float:
    """What stays when a program has run: its arguments, and results that are not in their place."""
    return report["arguments_gb"] + report["outputs_gb"] - report["donated_gb"]


def row(report: dict) -> tuple[str, ...]:
    """Cells of a table, see HEAD."""
    found, floor = report["kernels"], report["floor_seconds"]
    moved = [
        f"{name} {entry['count']} x, {entry['megabytes']:,.0f} MB"
        for name, entry in report["collectives"].items()
    ]
    memory = ("arguments_gb", "outputs_gb", "donated_gb", "temporary_gb")
    return (
        report["program"],
        *(f"{report[field]:.3g}" for field in memory),
        f"{math.fsum(report['tflop'].values()):.4g}",
        "?" if floor is None else f"{floor:.3g} s",
        f"{found['cuDNN attention'] + found['TPU attention']} / {found[flops.BATCHED] // 2}",
        "; ".join(moved) or "none",
    )


HEAD = (
    *("GB per device of", "arguments", "outputs", "donated", "temporary"),
    *("TFLOP", "floor", "attention fused / XLA", "collectives on each device"),
)


def abstract(tree, sharding):
    """Shapes and types of a pytree, all with one sharding."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)
