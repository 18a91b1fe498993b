import pytest
from omegaconf import OmegaConf
from torch import nn

from jointiq.enhancers import ENHANCERS, EnhancerSettings, build_enhancer, register_enhancer
from jointiq.enhancers.grdn import GRDN
from jointiq.errors import ConfigError

SMALL = {"grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 8}


def test_none_builds_none() -> None:
    assert build_enhancer(None) is None


def test_a_name_and_its_arguments_build_the_enhancer() -> None:
    network = build_enhancer({"name": "grdn", **SMALL, "reduction": 4})
    assert isinstance(network, GRDN)
    assert network.head.out_channels == 8
    assert network.attention.channel.mlp[0].out_channels == 2


def test_a_hydra_node_is_a_mapping_too() -> None:
    assert isinstance(build_enhancer(OmegaConf.create({"name": "grdn", **SMALL})), GRDN)


@pytest.mark.parametrize("name", ["torch.nn.Identity", "Identity", "os.system", "", None, 3])
def test_only_registered_names_are_built(name: object) -> None:
    with pytest.raises(ConfigError, match=r"enhancer\.name=.*grdn"):
        build_enhancer({"name": name, **SMALL})


def test_a_missing_name_lists_the_names() -> None:
    with pytest.raises(ConfigError, match="grdn"):
        build_enhancer(SMALL)


@pytest.mark.parametrize("extra", [{"_target_": "torch.nn.Identity"}, {"widht": 3}])
def test_an_unknown_argument_is_named_with_the_known_ones(extra: dict[str, object]) -> None:
    (key,) = extra
    with pytest.raises(ConfigError, match=rf"enhancer\.{key}=.*grdbs, rdbs, convs, kernels"):
        build_enhancer({"name": "grdn", **SMALL, **extra})


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(ConfigError, match=r"enhancer\.kernels=None"):
        build_enhancer({"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1})


def test_something_else_than_a_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="enhancer='grdn'"):
        build_enhancer("grdn")  # type: ignore[arg-type]


def test_one_decorated_class_is_enough_to_add_an_enhancer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENHANCERS, "_parts", dict(ENHANCERS._parts))

    @register_enhancer("same", EnhancerSettings)
    class Same(nn.Identity):
        def __init__(self, settings: EnhancerSettings) -> None:
            super().__init__()

    assert ENHANCERS.names() == sorted(["same", *(name for name in ENHANCERS.names() if name != "same")])
    assert isinstance(build_enhancer({"name": "same"}), Same)
    with pytest.raises(ValueError, match="two parts are named 'same'"):
        register_enhancer("same", EnhancerSettings)(nn.Identity)


@pytest.mark.slow
def test_every_module_of_the_folder_is_imported() -> None:
    import subprocess
    import sys

    code = "import jointiq.enhancers as e; print(','.join(e.ENHANCERS.names()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "grdn" in done.stdout.strip().split(",")
