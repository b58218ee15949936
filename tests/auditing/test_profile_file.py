from __future__ import annotations

from pathlib import Path

import pytest

import redtest_onnx as rt
from redtest_onnx.auditing.profile_file import load_profile, shipped
from redtest_onnx.auditing.reduced_build import missing, read_config, write_config
from redtest_onnx.auditing.support import supported

MODELS = Path(__file__).parents[2] / "models"


def test_shipped_profiles_load_and_name_their_sources() -> None:
    assert {"onnxruntime-cpu", "nnapi", "coreml", "xnnpack", "qnn", "tensorrt", "microcontroller"} <= set(
        shipped()
    )
    for name in shipped():
        profile = load_profile(name)
        assert profile.name == name
        assert profile.description
        assert profile.sources


def test_tables_of_the_installed_runtime_are_read() -> None:
    taken = supported(load_profile("nnapi").target)
    assert taken is not None
    assert {"conv", "relu", "gemm"} <= taken
    assert "layernormalization" not in taken


WRONG = {
    'name = "x"\n[budgets]\nfile_mb = "much"\n': (3, "budgets.file_mb"),
    'name = "x"\n\n[target]\nsupport = "abacus"\n': (4, "target.support"),
    'name = "x"\n[budget]\nfile_mb = 1\n': (2, "budget"),
    'name = "x"\n[budgets]\nmemory_mb = 3\nlatency_ms = -1\n': (4, "budgets.latency_ms"),
    'name = "x"\n[[suppress]]\nrule = "RT001"\nreason = "r"\n[[suppress]]\nrule = "all"\nreason = "r"\n': (
        6,
        "suppress.1.rule",
    ),
    'name = "x"\n[severities]\nRT001 = "fatal"\n': (3, "severities.RT001"),
    'name = "x"\n[severities]\nRT001 = "off"\nRT999 = "off"\n': (4, "severities: there is no rule RT999"),
    'name = "x"\n[[suppress]]\nrule = "RT998"\nreason = "r"\n': (3, "suppress: there is no rule RT998"),
}


@pytest.mark.parametrize("text", WRONG)
def test_mistakes_are_named_with_their_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    line, place = WRONG[text]
    with pytest.raises(rt.InputError) as error:
        load_profile(str(path))
    assert f"line {line}" in str(error.value)
    assert place in str(error.value)


def test_a_name_that_was_meant_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('name = "x"\n[budget]\nfile_mb = 1\n')
    with pytest.raises(rt.InputError) as error:
        load_profile(str(tmp_path / "p.toml"))
    assert error.value.hint == "did you mean 'budgets'?"


def test_what_is_no_toml_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("name = \n")
    with pytest.raises(rt.InputError, match="line 1"):
        load_profile(str(path))
    with pytest.raises(rt.InputError, match="read as a profile"):
        load_profile(str(tmp_path / "missing.toml"))


def test_operators_of_a_reduced_build_are_written_and_read(tmp_path: Path) -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    path = tmp_path / "ops.config"
    path.write_text(write_config([model]))
    config = read_config(path)
    assert not missing(model, config)
    other = rt.load(MODELS / "vit_digits.onnx")
    assert "ai.onnx;20;LayerNormalization" in missing(other, config)


def test_configurations_with_types_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "ops.config"
    path.write_text(
        "# made by hand\n!globally_allowed_types;float\n\n"
        'ai.onnx;12,13;Conv{"inputs": {"0": ["float"]}},Relu\ncom.microsoft;1;Gelu\n'
    )
    config = read_config(path)
    assert config["ai.onnx"][13] == {"Conv", "Relu"}
    assert config["com.microsoft"][1] == {"Gelu"}


def test_broken_configurations_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "ops.config"
    path.write_text("ai.onnx;13;Conv\nConv, Relu\n")
    with pytest.raises(rt.InputError, match="line 2"):
        read_config(path)


@pytest.mark.parametrize("kind", ["above", "absolute", "link"])
def test_a_profile_reads_nothing_outside_its_folder(kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("root:hunter2\n")
    folder = tmp_path / "profile"
    folder.mkdir()
    name = {"above": "../secret.txt", "absolute": secret.as_posix(), "link": "link"}[kind]
    if kind == "link":
        try:
            (folder / "link").symlink_to(secret)
        except OSError:
            pytest.skip("no links here")
    (folder / "p.toml").write_text(f'name = "p"\n[target]\nrequired_operators = "{name}"\n')
    with pytest.raises(rt.InputError, match="outside the profile's folder") as error:
        load_profile(str(folder / "p.toml"))
    assert "hunter2" not in str(error.value)


def test_a_line_that_is_no_configuration_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "ops.config").write_text("root:hunter2\n")
    with pytest.raises(rt.InputError, match="line 1") as error:
        read_config(tmp_path / "ops.config")
    assert "hunter2" not in str(error.value)
