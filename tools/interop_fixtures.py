"""Export small models from several frameworks, as fixtures for the tests.

    python tools/interop_fixtures.py torch            # PyTorch, both exporters, several operator sets
    python tools/interop_fixtures.py tensorflow       # TensorFlow and Keras through tf2onnx
    python tools/interop_fixtures.py sklearn jax      # scikit-learn through skl2onnx, JAX through jax2onnx

Each framework is imported only when asked for, so each can live in an environment of its own:

    pip install torch onnxscript
    pip install tensorflow-cpu tf2onnx
    pip install scikit-learn skl2onnx
    pip install jax flax jax2onnx

Weights are random, from a fixed seed: the fixtures are about graphs. The table of PROVENANCE.md is written
anew for the files that were made.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from interop_torch import torch_models

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "interop"
LARGEST = 100_000  # bytes
Row = tuple[str, str, str]
"""File without suffix, what the model is, and how it was exported."""


LEGACY = {
    "resnet": (9, 11, 13, 17, 20),
    "senet": (13,),
    "densenet": (17,),
    "unet": (11,),
    "encoder": (11, 17),
    "decoder": (17,),
    "lstm": (9, 17),
    "gru": (17,),
    "detector": (17,),
}
DYNAMO = {
    "resnet": (18, 22, 26),
    "senet": (20,),
    "densenet": (20,),
    "unet": (20,),
    "encoder": (18, 23),
    "decoder": (20,),
    "lstm": (20,),
    "detector": (20,),
}


def export_torch() -> Iterator[Row]:
    """PyTorch through TorchScript and through torch.export."""
    import torch

    made = f"torch {version('torch')}"
    for name, (what, module, inputs, outputs) in torch_models().items():
        module.eval()
        axis = 1 if name == "lstm" else 0
        arguments = tuple(inputs.values())
        for opset in LEGACY.get(name, ()):
            file = f"torch_{name}_script_op{opset}"
            axes = {key: {axis: "batch"} for key in inputs}
            for key in inputs:
                if key.startswith("past"):
                    axes[key][2] = "past"
            torch.onnx.export(
                module,
                arguments,
                FOLDER / f"{file}.onnx",
                dynamo=False,
                opset_version=opset,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_axes=axes,
            )
            yield file, what, f"{made}, TorchScript exporter, opset {opset}"
        for opset in DYNAMO.get(name, ()):
            file = f"torch_{name}_export_op{opset}"
            batch = torch.export.Dim("batch", min=1, max=1024)
            torch.onnx.export(
                module,
                arguments,
                FOLDER / f"{file}.onnx",
                dynamo=True,
                external_data=False,
                opset_version=opset,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=[{axis: batch} for _ in inputs],
                verbose=False,
            )
            yield file, what, f"{made}, torch.export-based exporter, opset {opset} asked for"


def export_tensorflow() -> Iterator[Row]:
    """TensorFlow and Keras through tf2onnx."""
    import tensorflow as tf
    import tf2onnx
    from tensorflow import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers

    def residual() -> Any:
        x = inputs = keras.Input((16, 16, 3))
        x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        for _ in range(2):
            y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
            y = layers.Conv2D(8, 3, padding="same")(layers.ReLU()(y))
            x = layers.ReLU()(layers.Add()([x, y]))
        return keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x)))

    def separable() -> Any:
        x = inputs = keras.Input((16, 16, 3))
        for _ in range(3):
            x = layers.ReLU(6.0)(layers.SeparableConv2D(8, 3, padding="same")(x))
        return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(layers.AveragePooling2D(4)(x))))

    def recurrent() -> Any:
        x = inputs = keras.Input((7, 6))
        x = layers.LSTM(8, return_sequences=True)(x)
        return keras.Model(inputs, layers.Dense(3)(layers.GRU(8)(x)))

    def attention() -> Any:
        x = inputs = keras.Input((8, 16))
        for _ in range(2):
            y = layers.LayerNormalization()(x)
            x = layers.Add()([x, layers.MultiHeadAttention(2, 8)(y, y)])
            y = layers.Dense(32, activation="relu")(layers.LayerNormalization()(x))
            x = layers.Add()([x, layers.Dense(16)(y)])
        return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))

    for name, what, build, opset in (
        ("resnet", "residual network, channels last", residual, 13),
        ("separable", "separable convolutions", separable, 15),
        ("recurrent", "LSTM and GRU", recurrent, 15),
        ("attention", "transformer encoder", attention, 18),
    ):
        model = build()
        signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="x")]
        function = tf.function(lambda x, model=model: model(x, training=False), input_signature=signature)
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=opset)
        file = f"keras_{name}_op{opset}"
        onnx.save(proto, FOLDER / f"{file}.onnx")
        versions = (
            f"tensorflow {version('tensorflow-cpu')}, keras {version('keras')}, tf2onnx {version('tf2onnx')}"
        )
        yield file, what, f"{versions}, opset {opset}"


def export_sklearn() -> Iterator[Row]:
    """scikit-learn through skl2onnx."""
    from skl2onnx import to_onnx
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 10)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    network = {"hidden_layer_sizes": (16, 16, 16), "max_iter": 30, "random_state": 0}
    for name, what, model, target in (
        ("mlp", "multilayer perceptron, classifier", MLPClassifier(**network), y),
        (
            "mlp_regressor",
            "scaler and multilayer perceptron",
            make_pipeline(StandardScaler(), MLPRegressor(**network)),
            x[:, 2],
        ),
        (
            "pca_logistic",
            "scaler, PCA, logistic regression",
            make_pipeline(StandardScaler(), PCA(4), LogisticRegression()),
            y,
        ),
        ("forest", "random forest", RandomForestClassifier(5, max_depth=4, random_state=0), y),
    ):
        model.fit(x, target)
        options = {"zipmap": False} if target is y else None
        proto = to_onnx(model, x[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3})
        file = f"sklearn_{name}_op18"
        onnx.save(proto, FOLDER / f"{file}.onnx")
        yield file, what, f"scikit-learn {version('scikit-learn')}, skl2onnx {version('skl2onnx')}, opset 18"


def export_jax() -> Iterator[Row]:
    """JAX and Flax through jax2onnx."""
    import jax
    from flax import nnx
    from jax2onnx import to_onnx

    class Residual(nnx.Module):
        def __init__(self, width: int, rngs: nnx.Rngs) -> None:
            self.norm = nnx.LayerNorm(width, rngs=rngs)
            self.one = nnx.Linear(width, 2 * width, rngs=rngs)
            self.two = nnx.Linear(2 * width, width, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return x + self.two(jax.nn.gelu(self.one(self.norm(x))))

    class Mlp(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.stem = nnx.Linear(10, 16, rngs=rngs)
            self.blocks = nnx.List([Residual(16, rngs) for _ in range(3)])
            self.head = nnx.Linear(16, 5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    class Cnn(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([nnx.Conv(3 if k == 0 else 8, 8, (3, 3), rngs=rngs) for k in range(4)])
            self.head = nnx.Linear(8, 5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            for layer in self.layers:
                x = jax.nn.relu(layer(x))
            return self.head(x.mean((1, 2)))

    made = f"jax {version('jax')}, flax {version('flax')}, jax2onnx {version('jax2onnx')}"
    for name, what, model, shape in (
        ("mlp", "residual perceptron", Mlp(nnx.Rngs(0)), ("B", 10)),
        ("cnn", "plain convolutions, channels last", Cnn(nnx.Rngs(0)), ("B", 16, 16, 3)),
    ):
        proto = to_onnx(model, [shape], opset=21)
        file = f"jax_{name}_op21"
        onnx.save(proto, FOLDER / f"{file}.onnx")
        yield file, what, f"{made}, opset 21"


EXPORTERS = {
    "torch": export_torch,
    "tensorflow": export_tensorflow,
    "sklearn": export_sklearn,
    "jax": export_jax,
}
HEAD = """# Where these files come from

Written by `tools/interop_fixtures.py` of this repository: our own small models with random or briefly
fitted weights, exported by the frameworks and versions below. They are part of this repository and under its
licence. Stack traces, which name files of the machine they were exported on, are taken out.

| file | what | exported by | bytes |
| --- | --- | --- | ---: |
"""


def without_traces(path: Path) -> None:
    """Take the stack traces out of a file's nodes: they name files of this machine."""
    proto = onnx.load(path)
    for node in proto.graph.node:
        kept = [entry for entry in node.metadata_props if not entry.key.endswith("stack_trace")]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.ClearField("doc_string")
    onnx.save(proto, path)


def provenance(rows: list[Row]) -> None:
    """Replace the rows of PROVENANCE.md for files made now; keep those of files made elsewhere."""
    path = FOLDER / "PROVENANCE.md"
    known = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("| `"):
                known[line.split("`")[1]] = line
    for file, what, how in rows:
        size = (FOLDER / f"{file}.onnx").stat().st_size
        known[f"{file}.onnx"] = f"| `{file}.onnx` | {what} | {how} | {size:,} |"
    lines = [known[name] for name in sorted(known) if (FOLDER / name).exists()]
    path.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Export what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("frameworks", nargs="+", choices=EXPORTERS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    warnings.simplefilter("ignore")
    for framework in parser.parse_args().frameworks:
        for row in EXPORTERS[framework]():
            without_traces(FOLDER / f"{row[0]}.onnx")
            size = (FOLDER / f"{row[0]}.onnx").stat().st_size
            print(f"{row[0]}: {size:,} bytes", flush=True)
            if size > LARGEST:
                raise SystemExit(f"{row[0]} is larger than {LARGEST:,} bytes")
            rows.append(row)
            provenance(rows)


if __name__ == "__main__":
    main()
