"""What the runtime knows, in the protocol's words: metadata, configuration, index, statistics. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from inferd.protocol import config_type
from inferd.protocol.messages import (
    BatchStatistics,
    ConfigInput,
    ConfigParameter,
    ConfigTensor,
    Duration,
    DynamicBatching,
    IndexEntry,
    InferStatistics,
    InstanceGroup,
    ModelConfig,
    ModelMetadata,
    ModelStatistics,
    TensorMetadata,
)
from inferd_runtime import ModelDescription, ModelNotReady, ModelSpec, State, StatsSnapshot, TensorSpec

if TYPE_CHECKING:
    from inferd_runtime import PlanState

_EXTENSIONS = (
    "classification", "model_repository", "schedule_policy", "model_configuration", "binary_tensor_data", "parameters",
    "statistics",
)  # fmt: skip

# The protocol's states; ours are finer. A model that is not served is UNAVAILABLE, with the reason.
_STATES = {
    State.READY: "READY",
    State.LOADING: "LOADING",
    State.DRAINING: "UNLOADING",
    State.UNLOADED: "UNAVAILABLE",
    State.FAILED: "UNAVAILABLE",
}


def extensions(takes_keys: bool) -> tuple[str, ...]:
    """What is spoken beyond the protocol's core; `takes_keys`: regions of shared memory are registered by key."""
    return (*_EXTENSIONS, "system_shared_memory") if takes_keys else _EXTENSIONS


def spec_of(description: ModelDescription) -> ModelSpec:
    """The spec of a version, or ModelNotReady where it was never open."""
    if description.spec is None:
        raise not_ready(description)
    return description.spec


def not_ready(description: ModelDescription) -> ModelNotReady:
    """Why a version does not serve."""
    reason = f": {description.reason}" if description.reason else ""
    return ModelNotReady(
        f"model {description.name!r} version {description.version} is {description.state.value}{reason}"
    )


def metadata(description: ModelDescription, versions: Iterable[int]) -> ModelMetadata:
    """Name, versions, and what goes in and out."""
    spec = spec_of(description)
    return ModelMetadata(
        description.name,
        tuple(str(version) for version in versions),
        _platform(description),
        tuple(_tensor(tensor) for tensor in spec.inputs),
        tuple(_tensor(tensor) for tensor in spec.outputs),
    )


def config(description: ModelDescription, versions: Iterable[int]) -> ModelConfig:
    """The configuration as Triton would tell it."""
    spec, plan = spec_of(description), description.plan
    is_batched = spec.max_batch > 0
    groups = (InstanceGroup(f"{description.name}_0", _kind(plan.device), plan.streams),) if plan else ()
    return ModelConfig(
        name=description.name,
        platform=_platform(description),
        backend=plan.engine if plan else "",
        version_policy={"specific": {"versions": list(versions)}},
        max_batch_size=spec.max_batch,
        input=tuple(ConfigInput(*_config_form(tensor, is_batched)) for tensor in spec.inputs),
        output=tuple(
            ConfigTensor(*_config_form(tensor, is_batched), description.label_files.get(tensor.name, ""))
            for tensor in spec.outputs
        ),
        instance_group=groups,
        parameters={key: ConfigParameter(text) for key, text in _facts(description).items()},
        dynamic_batching=DynamicBatching((plan.batch,)) if plan and plan.batch > 1 else UNSET,
    )


def index_entry(description: ModelDescription) -> IndexEntry:
    """One line of the repository index."""
    reason = description.reason
    if description.state is State.UNLOADED and not reason:
        reason = "unloaded"
    return IndexEntry(description.name, str(description.version), _STATES[description.state], reason)


def statistics(counters: StatsSnapshot) -> ModelStatistics:
    """The counters of one version. Every successful request was queued, gathered, run and split once; any other that
    was well-formed failed, whatever the reason. The time of failures is that of engine faults."""
    done = counters.success_count
    failed = counters.fail_count + counters.cancelled_count + counters.late_count + counters.rejected_count
    sums = InferStatistics(
        success=Duration(done, counters.success_ns),
        fail=Duration(failed, counters.fail_ns),
        queue=Duration(done, counters.queue_ns),
        compute_input=Duration(done, counters.compute_input_ns),
        compute_infer=Duration(done, counters.compute_infer_ns),
        compute_output=Duration(done, counters.compute_output_ns),
    )
    batches = tuple(
        BatchStatistics(
            rows,
            Duration(batch.count, batch.compute_input_ns),
            Duration(batch.count, batch.compute_infer_ns),
            Duration(batch.count, batch.compute_output_ns),
        )
        for rows, batch in sorted(counters.batches.items())
    )
    return ModelStatistics(
        name=counters.name,
        version=str(counters.version),
        last_inference=counters.last_inference_ms,
        inference_count=counters.inference_count,
        execution_count=counters.execution_count,
        inference_stats=sums,
        batch_stats=batches,
    )


def details(description: ModelDescription) -> dict[str, Any]:
    """Everything known of a version, for `inferd models`."""
    spec, plan, found = description.spec, description.plan, description.quantisation
    return {
        "name": description.name,
        "version": description.version,
        "state": description.state.value,
        "reason": description.reason,
        "format": description.format,
        "file_bytes": description.file_bytes,
        "digest": description.digest,
        "variants": description.variants,
        "inputs": [_tensor(tensor) for tensor in spec.inputs] if spec else None,
        "outputs": [_tensor(tensor) for tensor in spec.outputs] if spec else None,
        "max_batch": spec.max_batch if spec else 0,
        "plan": plan,
        "quantisation": found,
        "labels": {name: len(labels) for name, labels in description.labels.items()},
    }


def plan(description: ModelDescription, state: PlanState) -> dict[str, Any]:
    """How a version is run and what that rests on, for `inferd explain`. Trials bear the names that `chosen`, `idle`
    and `now` use."""
    shown: dict[str, Any] = msgspec.to_builtins(state)
    if state.evidence:
        for trial, entry in zip(state.evidence.trials, shown["evidence"]["trials"], strict=True):
            entry["name"] = str(trial.candidate)
    return {"model": description.name, "version": description.version, "plan": description.plan, **shown}


def _platform(description: ModelDescription) -> str:
    return "onnxruntime_onnx" if description.format == "onnx" else "openvino"


def _tensor(tensor: TensorSpec) -> TensorMetadata:
    return TensorMetadata(tensor.name, tensor.datatype, tensor.shape)


def _config_form(tensor: TensorSpec, is_batched: bool) -> tuple[str, str, tuple[int, ...]]:
    dims = tensor.shape[1:] if is_batched else tensor.shape
    return tensor.name, config_type(tensor.datatype), dims


def _kind(device: str) -> str:
    return "KIND_CPU" if device == "cpu" else "KIND_GPU" if "cuda" in device or "tensorrt" in device else "KIND_AUTO"


def _facts(description: ModelDescription) -> dict[str, str]:
    plan, found = description.plan, description.quantisation
    facts = {}
    if plan:
        facts = {"device": plan.device, "precision": plan.precision, "variant": plan.variant, "reason": plan.reason}
    if found:
        facts["quantisation"] = " ".join(part for part in (found.kind, found.layout, found.granularity) if part)
    return facts
