"""Export tiny transformers with random weights in the layouts that people ship, to try the package on.

Two environments, since the exporters want different versions of transformers:

    pip install torch onnxruntime-genai onnxruntime onnx onnx_ir "transformers>=5"
    python tools/tiny_transformers.py genai OUT          # Llama, Qwen3 and Phi folders, fp32 and int4

    pip install torch "optimum-onnx[onnxruntime]" "transformers<5"
    python tools/tiny_transformers.py optimum OUT        # decoders with past, merged, encoders

The PyTorch weights lie in `OUT/NAME-torch`, so that results can be held against PyTorch.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

WORDS = 250
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "vocab_size": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer with 256 entries, as tokenizer.json."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate((*special, *(f"word{k}" for k in range(WORDS))))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", pair="[BOS] $A [SEP] $B:1", special_tokens=[("[BOS]", 1), ("[SEP]", 5)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        unk_token="[UNK]",
        model_max_length=256,
    )
    fast.save_pretrained(folder)


def decoders() -> dict[str, Any]:
    """Tiny decoders by name."""
    import transformers as tf

    qwen = tf.Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True)
    phi = tf.PhiConfig(**(SIZES | {"num_attention_heads": 2}), partial_rotary_factor=0.5)
    llama = tf.LlamaConfig(**SIZES, tie_word_embeddings=False)
    return {"llama": llama, "qwen3": qwen, "phi": phi}


def save_torch(config: Any, model_class: Any, folder: Path) -> Any:
    """Random weights, larger than usual so that tokens differ, and a tokenizer."""
    import torch

    torch.manual_seed(0)
    model = model_class(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model


def genai(out: Path) -> None:
    """Llama, Qwen3 and Phi through onnxruntime-genai's builder, fp32 and int4."""
    from transformers import AutoModelForCausalLM

    for name, config in decoders().items():
        source = out / f"{name}-torch"
        save_torch(config, AutoModelForCausalLM.from_config, source)
        for precision in ("fp32", "int4"):
            target = out / f"{name}-genai-{precision}"
            shutil.rmtree(target, ignore_errors=True)
            builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source)]
            cache = out / "cache"
            subprocess.run(
                [*builder, "-o", str(target), "-p", precision, "-e", "cpu", "-c", str(cache)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            print(target)


def optimum(out: Path) -> None:
    """Decoders with past and merged, encoder-decoders, an encoder and a classifier, through Optimum."""
    import transformers as tf
    from optimum.exporters.onnx import main_export

    encoder = tf.BertConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=256,
        num_labels=3,
    )
    t5 = tf.T5Config(
        d_model=32,
        d_ff=64,
        d_kv=8,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        vocab_size=256,
        decoder_start_token_id=0,
    )
    whisper = tf.WhisperConfig(
        d_model=32,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=256,
        num_mel_bins=16,
        max_source_positions=1500,
        max_target_positions=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    jobs = [
        ("llama", decoders()["llama"], tf.AutoModelForCausalLM.from_config, "text-generation-with-past"),
        (
            "gpt2",
            tf.GPT2Config(
                n_embd=32,
                n_layer=4,
                n_head=4,
                vocab_size=256,
                n_positions=256,
                bos_token_id=1,
                eos_token_id=2,
            ),
            tf.AutoModelForCausalLM.from_config,
            "text-generation-with-past",
        ),
        ("t5", t5, tf.T5ForConditionalGeneration, "text2text-generation-with-past"),
        ("whisper", whisper, tf.WhisperForConditionalGeneration, "automatic-speech-recognition-with-past"),
        ("bert", encoder, tf.BertModel, "feature-extraction"),
        ("bert-classifier", encoder, tf.BertForSequenceClassification, "text-classification"),
    ]
    for name, config, model_class, task in jobs:
        source = out / f"{name}-torch"
        save_torch(config, model_class, source)
        if name == "whisper":
            tf.WhisperFeatureExtractor(feature_size=16).save_pretrained(source)
        for merged in (False, True) if "with-past" in task else (False,):
            target = out / f"{name}-optimum{'-merged' if merged else ''}"
            try:
                main_export(
                    str(source),
                    target,
                    task=task,
                    no_post_process=not merged,
                    do_validation=False,
                    framework="pt",
                    device="cpu",
                    **({"legacy": True} if merged and "text-generation" in task else {}),
                )
            except Exception as error:  # one exporter's failure shall not hide the others' results
                print(target, "failed:", error)
            else:
                print(target, *sorted(path.name for path in target.glob("*.onnx")))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("genai", "optimum"))
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    {"genai": genai, "optimum": optimum}[arguments.what](arguments.out.resolve())


if __name__ == "__main__":
    main()
