"""What passes as the same network: real comparisons of hand-made answers."""

import dataclasses

import pytest

from tfdistill.export import verify
from tfdistill.export.verify import Check

EQUAL = Check(
    format="litert-float32",
    signature="serving_default",
    images=200,
    difference=0.0,
    probability_difference=0.0,
    largest_logit=1.0,
    agreement=1.0,
    accuracy=0.9,
    network_accuracy=0.9,
)


def changed(**values) -> Check:
    return dataclasses.replace(EQUAL, **values)


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (changed(difference=0.9e-4), True),
        (changed(difference=1.1e-4), False),
        (changed(difference=1.9e-3, largest_logit=20.0), True),
        (changed(difference=2.1e-3, largest_logit=20.0), False),
        (changed(difference=0.9e-4, largest_logit=0.1), True),
        (changed(probability_difference=1.1e-4), False),
        (changed(difference=float("inf")), False),
        (changed(format="savedmodel", difference=1.1e-4), False),
        (changed(format="onnx", difference=1.1e-4), False),
        (changed(format="litert-float16", difference=0.9e-2), True),
        (changed(format="litert-float16", difference=1.1e-2), False),
        (changed(format="litert-int8", difference=5.0, accuracy=0.895), True),
        (changed(format="litert-int8", difference=5.0, accuracy=0.89), True),
        (changed(format="litert-int8", difference=0.1, accuracy=0.885), False),
        (changed(format="litert-int8", accuracy=0.95), True),
    ],
)
def test_floats_are_held_by_their_logits_and_int8_by_its_accuracy(check, good):
    assert check.good == good


def test_the_table_has_a_row_for_each_signature():
    found = [
        changed(format="savedmodel", difference=2.4e-7),
        changed(format="savedmodel", signature="bytes", agreement=0.995),
        changed(format="litert-int8", difference=0.81, accuracy=0.895),
    ]
    table = verify.table(found, "student/1")
    assert table.rows == (
        ("savedmodel, serving_default", "2.4e-07", "100.00", "90.00", "0.0001"),
        ("savedmodel, bytes", "0.0e+00", "99.50", "90.00", "0.0001"),
        ("litert-int8", "8.1e-01", "100.00", "89.50", "–"),
    )
    assert "200 test images" in table.note
