"""Every family's members, by the names that a configuration or a command line holds.

To add one, write its file and one line here: `docs/architecture.md` says what each family's members
have. A place is a module, or `module:attribute`; it is imported when it is first used, so that
names are checked without TensorFlow.
"""

from tfdistill.config.networks import APPLICATIONS, WIDE, Family
from tfdistill.utils.registry import Registry

# Where images come from: what stands before the colon in `data.source`.
SOURCES = Registry(
    {
        "digits": "tfdistill.data.sources.digits:READER",
        "tfds": "tfdistill.data.sources.tfds_prepared:READER",
        "imagewoof": "tfdistill.data.sources.imagewoof:READER",
        "folder": "tfdistill.data.sources.folder:READER",
        "csv": "tfdistill.data.sources.csv_file:READER",
        "npz": "tfdistill.data.sources.arrays:READER",
    }
)

# Architectures, by families of names: `name` of a network.
NETWORKS = Registry(
    {
        "cnn": Family("tfdistill.models.cnn:build", ("cnn2", "cnn4"), ("width", "dropout")),
        "dscnn": Family("tfdistill.models.cnn:build_separable", ("dscnn6",), ("width",)),
        "cifar_resnet": Family(
            "tfdistill.models.resnet:build_cifar",
            (
                *(f"resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)),
                *(f"resnet{depth}x4" for depth in (8, 32)),
            ),
            ("width",),
        ),
        "resnet": Family(
            "tfdistill.models.resnet:build",
            tuple(f"resnet{depth}{stem}" for stem in ("", "-imagenet") for depth in (18, 34, 50)),
            ("width",),
        ),
        "mlperf_tiny": Family(
            "tfdistill.models.resnet:build_mlperf", ("mlperf_resnet8",), ("width",)
        ),
        "wrn": Family(
            "tfdistill.models.wide_resnet:build",
            settings=("dropout",),
            pattern=WIDE,
            shown="wrn-D-K (D = 6n + 4, as wrn-28-10)",
        ),
        "keras": Family(
            "tfdistill.models.applications:build",
            tuple(f"keras:{name}" for name in APPLICATIONS),
            ("weights",),
            shown="keras:NAME (as keras:MobileNetV2)",
        ),
        "saved": Family("tfdistill.models.saved:build", ("saved",), ("path",), layers=True),
        "learning_speed": Family(
            "tfdistill.studies.learning_speed.published:build",
            tuple(f"{name}-dropout-in-evaluation" for name in ("cnn2", "cnn4")),
            ("width", "dropout"),
            layers=True,
        ),
    }
)

# Losses between softened logits: `distillation.loss`. The class has `from_settings`.
LOGIT_LOSSES = Registry(
    {
        "soft_targets": "tfdistill.losses.soft_targets:SoftTargets",
        "decoupled": "tfdistill.losses.decoupled:Decoupled",
        "dist": "tfdistill.losses.dist:Dist",
        "kl_of_log": "tfdistill.studies.learning_speed.published:KlOfLog",
    }
)

# Losses between inner layers: `loss` of `distillation.features`.
FEATURE_LOSSES = Registry(
    {
        "similarity_preserving": "tfdistill.losses.similarity:SimilarityPreserving",
        "hints": "tfdistill.losses.hints:Hints",
        "attention_transfer": "tfdistill.losses.attention:AttentionTransfer",
        "relational_distance": "tfdistill.losses.relational:RelationalDistance",
        "relational_angle": "tfdistill.losses.relational:RelationalAngle",
        "probabilistic": "tfdistill.losses.probabilistic:Probabilistic",
    }
)

# Questions: `study` of a configuration.
STUDIES = Registry(
    {
        "alpha_temperature": "tfdistill.studies.alpha_temperature.study",
        "assistants": "tfdistill.studies.assistants",
        "channel_split": "tfdistill.studies.channel_split.study",
        "distilled_ensembles": "tfdistill.studies.distilled_ensembles",
        "label_free": "tfdistill.studies.label_free.study",
        "learning_speed": "tfdistill.studies.learning_speed.study",
        "loss_family": "tfdistill.studies.loss_family.study",
        "low_bits": "tfdistill.studies.low_bits.study",
        "multi_view": "tfdistill.studies.multi_view.study",
        "mysteries": "tfdistill.studies.mysteries",
        "patient_teacher": "tfdistill.studies.patient_teacher.study",
        "pruning": "tfdistill.studies.pruning",
        "saliency": "tfdistill.studies.saliency.study",
        "single": "tfdistill.studies.single",
    }
)

# What does a run: `kind` of a run. A module with run_together, cost, check and one_batch.
RUN_KINDS = Registry(
    {
        "network": "tfdistill.training.train",
        "multi_view": "tfdistill.studies.multi_view.run",
        "saliency": "tfdistill.studies.saliency.run",
    }
)

# Formats of exported networks: `export.formats`; in the order of tables and model cards.
EXPORT_FORMATS = Registry(
    {
        "savedmodel": "tfdistill.export.saved_model:SAVED_MODEL",
        "litert-float32": "tfdistill.export.litert:FLOAT32",
        "litert-float16": "tfdistill.export.litert:FLOAT16",
        "litert-int8": "tfdistill.export.litert:INT8",
        "litert-int8-aware": "tfdistill.export.litert:AWARE",
        "litert-int4-aware": "tfdistill.export.litert:PACKED",
        "onnx": "tfdistill.export.onnx:ONNX",
    }
)

# How `tfdistill predict` writes its answers: `--format`. A function of answers and an open file.
ANSWER_FORMATS = Registry(
    {
        "table": "tfdistill.inference.output:write_table",
        "json": "tfdistill.inference.output:write_json",
        "csv": "tfdistill.inference.output:write_csv",
    }
)
