"""Compiling for GPUs that are not there: does a program fit, which kernels and collectives run.

Needs the CUDA build of JAX (`pip install "jax[cuda12]"`), no GPU. Nothing is run and nothing is
autotuned, so this says nothing about speed.
"""

import math
import re
import time

import jax
from jax.experimental import topologies

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
TARGETS = {"h200": H200}
OPTIONS = {"xla_gpu_enable_triton_gemm": False}  # its tiles need autotuning, which needs the GPU
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
KERNELS = {"cuDNN attention": r"__cudnn\$fmha", "cuDNN convolution": r"__cudnn\$conv"}
WIDTH = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}


def devices(target: str, shape: str):
    """Stand-ins for the GPUs of a cluster.

    Args:
      target: a name in TARGETS.
      shape: partitions x hosts x GPUs of a host, such as "1x1x8".
    Raises:
      ValueError: an unknown target or shape, or a JAX without CUDA.
    """
    if target not in TARGETS:
        raise ValueError(f"--aot: unknown target {target!r}; known: {', '.join(TARGETS)}")
    if not re.fullmatch(r"\d+x\d+x\d+", shape):
        raise ValueError(f"--aot: {shape!r} is not a shape such as 1x1x8")
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name=target, topology=shape, target_config=TARGETS[target]
        )
    except (RuntimeError, NotImplementedError) as error:
        text = str(error).splitlines()[0]
        raise ValueError(f"--aot needs jax[cuda12] (pip install 'jaxvid[gpu]'): {text}") from None
    return topology.devices


def compile_report(function, *arguments) -> dict:
    """Compiles a jitted function for abstract arguments; gigabytes are per device."""
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile(OPTIONS)
    seconds = time.perf_counter() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    return {
        "arguments_gb": round(memory.argument_size_in_bytes / 1e9, 3),
        "outputs_gb": round(memory.output_size_in_bytes / 1e9, 3),
        "donated_gb": round(memory.alias_size_in_bytes / 1e9, 3),
        "temporary_gb": round(memory.temp_size_in_bytes / 1e9, 3),
        "compile_seconds": round(seconds, 1),
        "kernels": {name: len(re.findall(call, text)) for name, call in KERNELS.items()},
        "collectives": collectives(text),
    }


def collectives(text: str) -> dict:
    """Of each kind in an optimised program: how many, and megabytes of their results."""
    found = {}
    for name in COLLECTIVES:
        lines = re.findall(rf"= (.*?) {name}(?:-start)?\(", text)
        if lines:
            size = sum(_bytes(line) for line in lines)
            found[name] = {"count": len(lines), "megabytes": round(size / 1e6, 3)}
    return found


def _bytes(shapes: str) -> int:
    size = 0
    for kind, lengths in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
        size += WIDTH.get(kind, 4) * math.prod(int(n) for n in lengths.split(",") if n)
    return size


def abstract(tree, sharding):
    """Shapes and types of a pytree, all with one sharding."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)
