"""Goldens of PSNR, SSIM, LPIPS and the Fréchet distance."""

import numpy as np
from einops import rearrange

from jaxvid.metrics import frechet, images, lpips
from jaxvid.metrics.keys import lpips_net, lpips_to_ours
from jaxvid.metrics.pixels import unit


def check_psnr_ssim(case):
    truth = rearrange((case.io["gt"] + 1) / 2, "v t c h w -> v t h w c")
    samples = rearrange(unit(case.io["samples_uint8"]), "v n t c h w -> v n t h w c")
    for video, sample in np.ndindex(samples.shape[:2]):
        pair = truth[video], samples[video, sample]
        case.close(images.psnr(*pair), case.io["psnr"][video, sample], "psnr")
        for data_range in (1, 2):
            expected = case.io[f"ssim_data_range_{data_range}"][video, sample]
            case.close(images.ssim(*pair, data_range), expected, f"ssim {data_range}")


def check_lpips(case):
    state = {name: formula(shape, i, rule) for name, shape, i, rule in case.config["parameters"]}
    net = lpips_net(list(state))
    params = lpips_to_ours(state, net)
    frames = rearrange(case.io["images"], "b c h w -> b h w c")
    first, second = (index.reshape(-1) for index in np.indices([len(frames)] * 2))
    distances = lpips.frame_distances(params, frames[first], frames[second], net)
    case.close(distances.reshape(len(frames), -1), case.io["lpips"], "lpips")

    embedding = lpips.embedder(params, net)(frames)
    assert embedding.shape == (len(frames), case.config["embedding_dim"])
    head, tail = case.io["embedding_head"], case.io["embedding_tail"]
    case.close(embedding[:, : head.shape[1]], head, "head")
    case.close(embedding[:, -tail.shape[1] :], tail, "tail")
    case.close(np.linalg.norm(embedding, axis=1), case.io["embedding_norm"], "norm")
    apart = embedding[first] - embedding[second]
    squared = np.sum(apart * apart, axis=1).reshape(len(frames), -1)
    case.close(squared, case.io["pairwise_squared_distance"], "squared distance")


def formula(shape, number, rule):
    """Stand-in weights, defined by `weights_rule` of the case."""
    j = np.arange(np.prod(shape), dtype=np.int64)
    if rule == "conv_weight":
        fan_in = len(j) // shape[0]
        wobble = 0.0007 * j * (((j * 2654435761) % 1000) / 1000)
        values = np.cos(0.731 * j + 1.3 * number + wobble) * np.sqrt(2 / fan_in)
    elif rule == "conv_bias":
        values = 0.05 * np.sin(0.37 * j + number)
    else:
        values = 0.02 * (1.05 + np.sin(0.9 * j + number))
    return values.reshape(shape).astype(np.float32)


def check_frechet_distance(case):
    for name in case.config["sizes"]:
        expected = case.group(name)
        a, b = expected["features_1"], expected["features_2"]
        case.close(frechet.frechet_distance(a, b), expected["fvd"][0], f"{name} fvd")
        case.close(frechet.frechet_distance(a, a), expected["fvd_self"][0], f"{name} itself")
        case.close(frechet.polynomial_mmd(a, b), expected["polynomial_mmd"][0], f"{name} mmd")
    kvd = case.config["kvd"]
    features = case.group(kvd["features"])
    a, b = features["features_1"], features["features_2"]
    found = frechet.kernel_distance(a, b, kvd["subsets"], kvd["subset_size"])
    case.close(found, case.io["kvd/mean_std"], "kvd")


CHECKS = {
    "fdm/psnr_ssim": check_psnr_ssim,
    "fdm/lpips": check_lpips,
    "fdm/frechet_distance": check_frechet_distance,
}
