from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.text import TextOptions, Texts, open_texts
from redtest_onnx.data.text_files import read_texts
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load, save
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.session import Session
from tests.causal_decoders import causal_decoder
from tests.decoders import encoder, plain_decoder

tokenizers = pytest.importorskip("tokenizers")

LINES = ["red green", "green blue red blue", "blue", "red red red", "green green"]


def write_tokenizer(folder: Path, longest: int = 64) -> Path:
    words = {"[PAD]": 0, "[UNK]": 1, "[SEP]": 2, "red": 3, "green": 4, "blue": 5}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A", pair="$A [SEP] $B:1", special_tokens=[("[SEP]", 2)]
    )
    # What the file says of padding and truncation is for its author's batches.
    tokenizer.enable_padding(length=64, pad_id=0)
    tokenizer.enable_truncation(longest)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def saved(model: Model, folder: Path, longest: int = 64) -> Model:
    write_tokenizer(folder, longest)
    save(model, folder / "model.onnx", force=True)
    return load(folder / "model.onnx")


def lines(folder: Path, texts: list[str] = LINES) -> Path:
    path = folder / "texts.txt"
    path.write_text("\n".join(texts) + "\n\n", encoding="utf-8")
    return path


def test_batches_are_padded_to_their_longest_text(tmp_path: Path) -> None:
    data = open_texts(lines(tmp_path), saved(encoder(1), tmp_path))
    feeds = data.inputs([0, 2])
    np.testing.assert_array_equal(feeds["ids"], [[3, 4], [5, 0]])
    np.testing.assert_array_equal(feeds["valid"], [[1, 1], [1, 0]])
    assert data.inputs([1, 2])["ids"].shape == (2, 4)
    assert data.fixed_length().inputs([2])["ids"].shape == (1, 4)
    assert len(data) == 5
    assert not data.labelled


def test_texts_are_cut_at_the_longest_length(tmp_path: Path) -> None:
    model = saved(encoder(1), tmp_path)
    assert open_texts(lines(tmp_path), model, TextOptions(max_length=3)).inputs([1])["ids"].shape == (1, 3)
    with pytest.raises(InputError, match="at least 1"):
        TextOptions(max_length=0)


def test_open_data_finds_the_tokenizer_beside_the_model(tmp_path: Path) -> None:
    model = saved(encoder(1), tmp_path)
    assert isinstance(rt.open_data(lines(tmp_path), model), Texts)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        rt.open_data(lines(tmp_path), model)


def test_a_decoder_gets_windows_and_empty_caches(tmp_path: Path) -> None:
    data = open_texts(lines(tmp_path), saved(plain_decoder(1), tmp_path), TextOptions(max_length=4))
    feeds = data.inputs([0, 1])
    np.testing.assert_array_equal(feeds["input_ids"], [[3, 4, 4, 5], [3, 5, 5, 3]])
    np.testing.assert_array_equal(feeds["position_ids"], [[0, 1, 2, 3]] * 2)
    assert feeds["past_key_values.0.key"].shape == (2, 2, 0, 16)
    assert feeds["attention_mask"].sum() == 8


def test_windows_are_no_longer_than_the_table_of_positions(tmp_path: Path) -> None:
    model = saved(plain_decoder(2), tmp_path)
    assert open_texts(lines(tmp_path, ["red green blue"] * 50), model).inputs([0, 1])["input_ids"].shape == (
        2,
        64,
    )


LONG = ["red green blue " * 100] * 4


def test_a_decoder_without_caches_gets_windows_too(tmp_path: Path) -> None:
    model = saved(causal_decoder(positions=128), tmp_path, longest=512)
    data = open_texts(lines(tmp_path, LONG), model)
    assert data.inputs(range(len(data)))["input_ids"].shape == (9, 128)  # of 1,200 tokens
    assert Session(model).run(data.inputs([0]))["logits"].shape == (1, 128, 50)
    assert open_texts(tmp_path / "texts.txt", model, TextOptions(max_length=20)).inputs([0])[
        "input_ids"
    ].shape == (1, 20)


def test_windows_are_as_long_as_the_model_fixes(tmp_path: Path) -> None:
    for tokens in (24, 160):
        model = causal_decoder(positions=tokens, tokens=tokens)
        folder = tmp_path / str(tokens)
        folder.mkdir()
        data = open_texts(lines(folder, LONG), saved(model, folder, longest=512))
        assert len(data) == 1200 // tokens
        assert all((data.inputs([k])["input_ids"] != data.pad).all() for k in range(len(data)))


def test_labelled_texts_of_a_decoder_and_texts_of_others_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text,label\n" + "\n".join(f"{text},{k % 2}" for k, text in enumerate(LINES)), "utf-8")
    labelled = open_texts(path, saved(causal_decoder(), tmp_path), TextOptions(label_column="label"))
    assert len(labelled) == len(LINES)
    assert len(open_texts(lines(tmp_path), saved(causal_decoder("nothing"), tmp_path))) == len(LINES)


def test_texts_beyond_the_table_of_positions_say_what_shortens_them(tmp_path: Path) -> None:
    model = saved(causal_decoder("nothing", positions=200), tmp_path, longest=512)
    data = open_texts(lines(tmp_path, LONG), model)
    with pytest.raises(InputError) as caught:
        Session(model).run(data.inputs([0]))
    assert "if it takes fewer tokens, `max_length` cuts texts" in str(caught.value)


def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path: Path) -> None:
    model = saved(plain_decoder(2), tmp_path)
    words = {f"w{k}": k for k in range(51)}
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    other.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    other.save(str(tmp_path / "other.json"))
    options = TextOptions(tokenizer=tmp_path / "other.json")
    assert len(open_texts(lines(tmp_path, ["w49 w1 w2 w3"]), model, options)) == 1
    with pytest.raises(InputError, match="token ids up to 50; the model's table of tokens has 50 rows"):
        open_texts(lines(tmp_path, ["w50 w1 w2 w3"]), model, options)


def test_pairs_and_labels_come_from_columns(tmp_path: Path) -> None:
    model = saved(encoder(1), tmp_path)
    path = tmp_path / "pairs.csv"
    path.write_text("query,document,label\nred,blue,yes\ngreen,green red,no\n", encoding="utf-8")
    data = open_texts(path, model, TextOptions(text_column="query", pair_column="document"))
    np.testing.assert_array_equal(data.inputs([1])["ids"], [[4, 2, 4, 3]])
    np.testing.assert_array_equal(data.labels([0, 1]), [1, 0])
    with pytest.raises(InputError, match="has no column 'nothing'") as caught:
        open_texts(path, model, TextOptions(text_column="nothing"))
    assert "query, document, label" in str(caught.value)


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": t, "label": k}) for k, t in enumerate(LINES)), "utf-8")
    rows = read_texts(path)
    assert rows.texts == tuple(LINES)
    assert rows.labels == (0, 1, 2, 3, 4)
    path.write_text('{"text": "a"}\n{"text": 3}\n', "utf-8")
    with pytest.raises(InputError, match="row 1 has no text in column 'text'"):
        read_texts(path)
    path.write_text("{broken\n", "utf-8")
    with pytest.raises(InputError, match="line 1 is not JSON"):
        read_texts(path)


def test_empty_files_and_other_models_are_refused(tmp_path: Path) -> None:
    model = saved(encoder(1), tmp_path)
    with pytest.raises(InputError, match="holds no text"):
        open_texts(lines(tmp_path, [""]), model)
