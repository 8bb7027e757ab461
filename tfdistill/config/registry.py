"""Every family's members, by the names that a configuration or a command line holds.

To add one, write its file and one line here: `docs/architecture.md` says what each family's members
have. A place is a module, or `module:attribute`; it is imported when it is first used, so that
names are checked without TensorFlow.
"""

from tfdistill.utils.registry import Registry

# Questions: `study` of a configuration.
STUDIES = Registry(
    {
        "alpha_temperature": "tfdistill.studies.alpha_temperature",
        "assistants": "tfdistill.studies.assistants",
        "channel_split": "tfdistill.studies.channel_split.study",
        "distilled_ensembles": "tfdistill.studies.distilled_ensembles",
        "learning_speed": "tfdistill.studies.learning_speed.study",
        "loss_family": "tfdistill.studies.loss_family.study",
        "multi_view": "tfdistill.studies.multi_view.study",
        "mysteries": "tfdistill.studies.mysteries",
        "patient_teacher": "tfdistill.studies.patient_teacher.study",
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
        "onnx": "tfdistill.export.onnx:ONNX",
    }
)
