"""Measure a hundredth of ImageNet and say what all of it would take.

12,800 photos of 500 x 375 pixels in 100 classes are generated. Stages: `look` (every file read and
decoded once), `start` (of any later process), `logits` (one view of all images through a teacher,
stored) and `epoch` (a student's, from stored logits). Each is first timed on a tenth, which gives a
rate; the rates say what the whole should take; then the whole is timed. ImageNet-1k is 100 times
that, with files of 110 kB on average in place of those written here.

    python benchmarks/scale.py --output scale.json
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

HEIGHT, WIDTH, CLASSES = 375, 500, 100
DIFFERENT = 400
STAGES = ("look", "start", "logits", "epoch")


def write_photos(folder: Path, first: int, count: int, patterns: list[bytes]) -> None:
    """Write JPEG photos, evenly over the classes; their bytes differ in a comment."""
    for number in range(first, first + count):
        path = folder / f"class{number % CLASSES:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = patterns[number % len(patterns)]
        comment = b"\xff\xfe\x00\x0a%08d" % number
        path.write_bytes(data[:2] + comment + data[2:])


def patterns() -> list[bytes]:
    """Return encoded pictures, smooth ones with noise."""
    import tensorflow as tf

    random, found = np.random.default_rng(0), []
    for _ in range(DIFFERENT):
        small = random.normal(128, 50, (HEIGHT // 15, WIDTH // 15, 3))
        smooth = tf.image.resize(small, (HEIGHT, WIDTH), method="bicubic").numpy()
        pixels = np.clip(smooth + random.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)
        found.append(tf.io.encode_jpeg(pixels, quality=85).numpy())
    return found


def stages(folder: Path, scratch: Path, given: argparse.Namespace) -> dict[str, float]:
    """Return seconds of each stage over the photos in a folder."""
    import keras

    from tfdistill import models
    from tfdistill.config import AugmentConfig, CacheConfig, DataConfig, ModelConfig
    from tfdistill.data import BatchSettings, load, steps_per_epoch, training_batches
    from tfdistill.distillation.distiller import Distiller
    from tfdistill.teacher_cache import Teacher, build

    keras.utils.set_random_seed(0)
    seconds = {}

    def timed(name: str, stage):
        began = time.perf_counter()
        value = stage()
        seconds[name] = time.perf_counter() - began
        return value

    augment = AugmentConfig(resized_crop=0.08, flip=True, views=1)
    config = DataConfig(
        f"folder:{folder}",
        storage="files",
        validation=100,
        test_examples=100,
        normalize="none",
        input_size=given.size,
    )

    def reading():
        images = load(config, tell=lambda note: None)
        assert images.hashes
        return images

    timed("look", reading)
    images = timed("start", reading)
    shapes = images.input_shape, images.num_classes
    teacher = models.build(ModelConfig(given.teacher), *shapes)
    student = models.build(ModelConfig(given.student, width=0.5), *shapes)
    settings = BatchSettings(given.batch, augment=augment, input_size=given.size)
    cache = timed(
        "logits",
        lambda: build(
            scratch / "logits",
            [Teacher.of(teacher, "teacher")],
            images,
            settings,
            CacheConfig(dtype="float16", top_k=50, temperatures=[4.0], precision=given.precision),
        ),
    )
    learner = Distiller(student, alpha=0.9, temperature=4.0)
    learner.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logits = cache.logits(temperature=4.0)

    def epoch() -> None:
        batches = training_batches(images.train, settings, epochs=1, teacher_logits=logits)
        steps = steps_per_epoch(len(images.train), given.batch)
        learner.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)

    learner.fit(
        training_batches(images.train, settings, epochs=1, teacher_logits=logits),
        steps_per_epoch=1,
        shuffle=False,
        verbose=0,
    )
    timed("epoch", epoch)
    seconds["bytes"] = cache.size
    seconds["trained"] = len(images.train)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=12800)
    parser.add_argument("--part", type=int, default=1280)
    parser.add_argument("--teacher", default="resnet18")
    parser.add_argument("--student", default="cnn4")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TFDISTILL_CACHE"] = f"{scratch}/cache"
        encoded = patterns()
        # The first part warms up what is compiled and loaded once.
        found = []
        for name, count in (("warm", 500), ("part", given.part), ("whole", given.photos)):
            folder = Path(scratch) / name
            write_photos(folder, 0, count, encoded)
            found.append(stages(folder, folder / ".." / f"{name}-logits", given))
    _, part, whole = found
    result: dict = {**{k: v for k, v in vars(given).items() if k != "output"}, "stages": {}}
    print(f"{'stage':8} {'images/s':>9} {'expected s':>11} {'measured s':>11} {'ratio':>6}")
    for stage in STAGES:
        rate = part["trained"] / part[stage]
        expected = whole["trained"] / rate
        ratio = whole[stage] / expected
        row = {"images_per_s": rate, "expected_s": expected, "measured_s": whole[stage]}
        result["stages"][stage] = row
        print(f"{stage:8} {rate:9.0f} {expected:11.1f} {whole[stage]:11.1f} {ratio:6.2f}")
    result["bytes_per_image_and_view"] = whole["bytes"] / whole["trained"]
    result["peak_GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"logits {result['bytes_per_image_and_view']:.0f} bytes an image and view")
    print(f"peak {result['peak_GB']:.2f} GB")
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
