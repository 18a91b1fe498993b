"""The benchmark's program, on small models: what it writes, and that it would notice a codec that does not work."""

import io
import json
import math
from collections import defaultdict

import pytest
import torch
from compressai.entropy_models import GaussianConditional
from rich.console import Console

from jointiq.errors import ConfigError
from jointiq.evaluation.stopwatch import Moment
from tools.bench import __main__ as bench
from tools.bench import codec, contenders, report, scaling, synthetic_latents
from tools.bench.codec import profile_codec

CHANNELS = 24
# mbt2018 takes multiples of 64.
SIZE = (128, 192)


@pytest.fixture(autouse=True, scope="module")
def small():
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "CHANNELS", CHANNELS)
        patch.setattr(codec, "LIGHT_GRDN", {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4})
        patch.setattr(codec, "QUICK_SIZE", SIZE)
        patch.setattr(scaling, "QUICK_SIZES", ((64, 96),))
        patch.setattr(synthetic_latents, "CALIBRATION_SIZE", (256, 384))
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def latents():
    scale = synthetic_latents.find_scale(CHANNELS, CHANNELS)
    return synthetic_latents.make_latents(SIZE, CHANNELS, CHANNELS, scale), scale


def numbers(value):
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


@pytest.fixture(scope="module")
def quick(small, tmp_path_factory):
    """The folder of a quick run, without other sizes."""
    folder = tmp_path_factory.mktemp("bench")
    assert bench.main(["codec", "--quick", "--no-scaling", "--output", str(folder / "codec.json")]) == 0
    return folder


@pytest.fixture
def result(quick):
    return json.loads((quick / "codec.json").read_text())


def test_ratios_are_those_of_the_seconds(result):
    assert all(math.isfinite(number) for number in numbers(result))
    for part in ("encode", "decode", "entropy_decode"):
        seconds = {name: entry[f"{part}_seconds"] for name, entry in result["contenders"].items()}
        assert list(seconds) == list(codec.NAMES) and min(seconds.values()) > 0
        for name, entry in result["contenders"].items():
            assert entry[f"{part}_ratio"] == pytest.approx(seconds[name] / seconds["mbt2018"])
        assert result[f"{part}_ratio"] == result["contenders"]["jointiq"][f"{part}_ratio"]


def test_all_contenders_code_at_half_a_bit_per_pixel(result):
    for entry in result["contenders"].values():
        assert 0.4 <= entry["bpp"] <= 0.6
        assert entry["entropy_decode_seconds"] < entry["decode_seconds"]


def test_the_settings_are_written(result):
    settings = result["settings"]
    assert settings["threads"] == 1 and settings["repeats"] == 1
    assert (settings["height"], settings["width"]) == SIZE and settings["N"] == settings["M"] == CHANNELS
    assert settings["processor"] and settings["torch"] == torch.__version__


@pytest.mark.slow
def test_time_and_memory_against_size(tmp_path, capsys):
    bench.main(["codec", "--quick", "--output", str(tmp_path / "codec.json")])
    said = capsys.readouterr().out
    assert "mbt2018" in said and "96x64" in said
    assert (tmp_path / "codec.png").stat().st_size > 5000
    (entry,) = json.loads((tmp_path / "codec.json").read_text())["size_scaling"]
    assert (entry["height"], entry["width"]) == (64, 96)
    for action in ("encode", "decode"):
        assert entry[f"{action}_peak_memory_bytes"] >= entry[f"{action}_base_memory_bytes"] > 2**26
        assert entry[f"{action}_seconds_per_megapixel"] == pytest.approx(entry[f"{action}_seconds"] / 0.006144)


def test_sizes_can_be_left_out(quick, result):
    assert result["size_scaling"] == [] and not (quick / "codec.png").exists()


def test_on_80_columns_every_contender_has_one_line(result):
    for entry in result["contenders"].values():
        entry |= {f"{part}_seconds": 88.88 for part in codec.PARTS}
    console = Console(width=80, force_terminal=True, color_system=None, file=io.StringIO())
    report.comparison_table(result).print(console)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    for name in codec.NAMES.values():
        (line,) = [line for line in lines if line[: len(name.split())] == name.split() and line[-1][0].isdigit()]
        assert line.count("88.88") == 3


@pytest.mark.parametrize("arguments", [["--repeats", "0"], ["--output", "codec.txt"]])
def test_wrong_options_are_refused(arguments):
    with pytest.raises(ConfigError, match=arguments[0]):
        bench.main(["codec", "--quick", *arguments])


def test_latents_are_busy_and_cost_the_wanted_rate(latents):
    (y, z), scale = (latents[0].y, latents[0].z), latents[1]
    assert y.shape == (1, CHANNELS, 8, 12) and z.shape == (1, CHANNELS, 2, 3)
    assert float((y.abs() > 1).float().mean()) > 0.02
    assert not torch.equal(y, synthetic_latents.make_latents(SIZE, CHANNELS, CHANNELS, scale, seed=1).y)
    calibration = synthetic_latents.make_latents(synthetic_latents.CALIBRATION_SIZE, CHANNELS, CHANNELS, scale)
    costs = [synthetic_latents.estimated_bpp(calibration, synthetic_latents.CALIBRATION_SIZE, G, scale) for G in (1, 3)]
    assert sum(costs) / 2 == pytest.approx(0.5, abs=0.01)
    assert costs[1] < costs[0]


def test_predictions_fit_and_scatter(latents):
    _, scale = latents
    model = synthetic_latents.fitted_jointiq(codec.model_config(), scale)
    seen = synthetic_latents.make_latents(synthetic_latents.CALIBRATION_SIZE, CHANNELS, CHANNELS, scale)
    with torch.no_grad():
        parameters = model.entropy_model.mixture_parameters(seen.y, seen.z)[0].unflatten(0, (3, 3, CHANNELS)).flatten(3)
    wanted = synthetic_latents.fitting_mixture(3, CHANNELS, scale)
    assert torch.allclose(parameters[:2].mean(-1), wanted[:2], atol=1e-4)
    assert torch.allclose(parameters[2].mean(-1), wanted[2], atol=1e-2)
    assert torch.allclose(parameters[2].std(-1), torch.full((3, CHANNELS), synthetic_latents.SCALE_ERROR), atol=1e-2)


@pytest.mark.parametrize("name", contenders.COMPRESSAI)
def test_scales_that_the_others_code_with_fit_and_scatter(name, latents, monkeypatch):
    _, scale = latents
    model = synthetic_latents.fitted_compressai(contenders.COMPRESSAI[name], CHANNELS, CHANNELS, scale)
    seen = synthetic_latents.make_latents(synthetic_latents.CALIBRATION_SIZE, CHANNELS, CHANNELS, scale)
    synthetic_latents.substitute(model, seen)
    used = defaultdict(list)
    indexes_of = GaussianConditional.build_indexes

    def watched(coder, scales):
        used[coder].append(scales[0].reshape(scales.shape[1], -1))
        return indexes_of(coder, scales)

    monkeypatch.setattr(GaussianConditional, "build_indexes", watched)
    with torch.no_grad():
        model.compress(torch.zeros(1, 3, 64, 64))
    found = torch.cat([torch.cat(parts, 1) for parts in used.values()])
    wanted = synthetic_latents.fitting_log_sigmas(1, CHANNELS, scale)[1][0].exp()
    assert found.shape == (CHANNELS, 16 * 24)
    assert torch.allclose(found.mean(1), wanted, rtol=1e-3)
    assert torch.allclose(found.std(1), synthetic_latents.SCALE_ERROR * wanted, rtol=1e-2)


@pytest.mark.parametrize("ours", [True, False])
def test_other_latents_than_encoded_stop_the_run(ours, latents):
    (given, scale), image = latents, codec.photograph(SIZE)
    if ours:
        model = synthetic_latents.fitted_jointiq(codec.model_config(), scale)
        entry = contenders.JointIQContender(model, image, given)
    else:
        model = synthetic_latents.fitted_compressai(contenders.COMPRESSAI[codec.HYPERPRIOR], CHANNELS, CHANNELS, scale)
        entry = contenders.CompressAIContender(model, image, given)
    entry.encode()
    entry.decode()
    # The same object feeds the hooks, so it is the check that sees another one.
    entry.latents = synthetic_latents.Latents(entry.latents.y + 1, entry.latents.z)
    with pytest.raises(RuntimeError, match="other latents"):
        entry.decode()


def test_encoding_runs_the_transforms_it_replaces(latents):
    given, scale = latents
    model = synthetic_latents.fitted_jointiq(codec.model_config(), scale)
    calls = []
    model.g_a.register_forward_pre_hook(lambda *_: calls.append("g_a"))
    model.entropy_model.h_a.register_forward_pre_hook(lambda *_: calls.append("h_a"))
    contenders.JointIQContender(model, codec.photograph(SIZE), given).encode()
    assert calls == ["g_a", "h_a"]


def test_a_rate_out_of_bounds_is_no_comparison():
    times = codec.Times({part: [Moment(1, 1)] for part in codec.PARTS}, {"total": 100, "payload": 90})
    entries = dict.fromkeys(codec.NAMES, times)
    assert codec.summary(entries, (40, 40))["contenders"]["mbt2018"]["bpp"] == 0.5
    with pytest.raises(RuntimeError, match="bpp"):
        codec.summary(entries, (20, 20))


def test_medians_and_turns():
    class Fake:
        coded_bytes = {"total": 100, "payload": 90}

        def __init__(self, name):
            self.name, self.turn = name, 0

        def encode(self):
            order.append(self.name)
            self.turn += 1
            return Moment(wall=(100, 3, 1, 2)[self.turn - 1], cpu=1)

        def decode(self):
            return contenders.DecodeTime(Moment(5, 5), Moment(4, 4))

    order = []
    steps = []
    times = codec.interleave({"a": Fake("a"), "b": Fake("b")}, repeats=3, warm_up=True, step=steps.append)
    assert order == ["a", "b"] * 4
    assert times["a"].wall("encode") == 2 and times["b"].cpu("entropy_decode") == 4
    assert len(steps) == 16


@pytest.mark.slow
def test_profile_adds_up(latents):
    encode, decode = profile_codec(SIZE, codec.LIGHT_GRDN)
    assert encode.calls["g_a"] == encode.calls["h_a"] == 1 and encode.calls["g_s"] == 0
    assert decode.calls["g_s"] == decode.calls["GRDN"] == 1 and decode.calls["rANS: decode"] > 0
    for sections in (encode, decode):
        total = sum(sections.spent.values())
        assert min(sections.spent.values()) > -0.01 * total
        assert sections.spent["estimator: per step"] > 0


def test_profile_leaves_the_functions_as_they_were():
    from jointiq.coding import image_codec

    original = image_codec.latents_crc
    profile_codec(SIZE, None)
    assert image_codec.latents_crc is original
