"""Names of outputs."""

from __future__ import annotations

import pytest

from redtest_onnx.runtime.outputs.words import meaning


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("logits", "classes"),
        ("class_probabilities", "classes"),
        ("output_scores:0", "classes"),
        ("box_cls", "classes"),
        ("PredictedCategories", "classes"),
        ("mask_logits", "classes"),
        ("sentence_embedding", "embedding"),
        ("cls_embedding", "embedding"),
        ("label_features", "embedding"),
        ("text_embeds", "embedding"),
        ("pooler_output", "embedding"),
        ("pred_boxes", "values"),
        ("predboxes", "values"),
        ("detection_bboxes2", "values"),
        ("class_heatmap", "values"),
        ("last_hidden_state", "values"),
        ("lastHiddenState", "values"),
        ("mel_1", "values"),
        ("loc", "values"),
        ("StatefulPartitionedCall:0", None),
        ("PartitionedCall", None),
        ("Identity_1", None),
        ("transpose_1.tmp_0", None),
        ("Reshape_rectangle", None),
        ("block_3", None),
        ("depthwise_out", None),
        ("checkpointed", None),
        ("tensorflow_out", None),
        ("distilbert", None),
        ("dense_2", None),
        ("", None),
        ("1234", None),
    ],
)
def test_the_last_word_that_says_something_decides(name: str, expected: str | None) -> None:
    assert meaning(name) == expected
