"""Adds the operation `classify` to a converted function, which returns a class label instead of probabilities.

coremltools can add it during conversion, but then can neither name further outputs nor compress weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from morvit_deploy.exporters.coreml.sdk.load import Message, Model, coremltools, quiet

PROBABILITIES = "probabilities"  # the output that it reads and replaces
LABEL, BY_LABEL = "classLabel", "classLabel_probs"  # the outputs that it makes


def classify(model: Model, labels: Sequence[str]) -> Model:
    """The same function, which returns the most probable label and the probabilities by label."""
    ct = coremltools()
    spec = model.get_spec()
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    _operation(block.operations.add(), labels)
    block.outputs.remove(PROBABILITIES)
    block.outputs[:] = [LABEL, BY_LABEL, *block.outputs]
    ports = [port for port in spec.description.output if port.name != PROBABILITIES]
    del spec.description.output[:]
    label, by_label = spec.description.output.add(name=LABEL), spec.description.output.add(name=BY_LABEL)
    label.type.stringType.SetInParent()
    by_label.type.dictionaryType.stringKeyType.SetInParent()
    spec.description.output.extend(ports)
    spec.description.predictedFeatureName = LABEL
    spec.description.predictedProbabilitiesName = BY_LABEL
    with quiet():
        return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def _operation(operation: Message, labels: Sequence[str]) -> None:
    from coremltools.proto.MIL_pb2 import DataType

    operation.type = "classify"
    _text(operation.attributes["name"], "classify")
    operation.inputs["probabilities"].arguments.add(name=PROBABILITIES)
    classes = operation.inputs["classes"].arguments.add().value
    classes.type.listType.type.tensorType.dataType = DataType.STRING
    classes.type.listType.length.constant.size = len(labels)
    for label in labels:
        _text(classes.immediateValue.list.values.add(), label)
    operation.outputs.add(name=LABEL).type.tensorType.dataType = DataType.STRING
    by_label = operation.outputs.add(name=BY_LABEL).type.dictionaryType
    by_label.keyType.tensorType.dataType = DataType.STRING
    by_label.valueType.tensorType.dataType = DataType.FLOAT64


def _text(value: Message, text: str) -> None:
    from coremltools.proto.MIL_pb2 import DataType

    value.type.tensorType.dataType = DataType.STRING
    value.immediateValue.tensor.strings.values.append(text)
