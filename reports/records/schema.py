"""The form of a run's record: what store, reports and commands rely on. A record of another form counts as damaged."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Record = dict[str, Any]
ENDED = ("done", "failed", "diverged")  # the statuses of a stored run
CELL = ["task", "quality", "source", "algorithm", "variant", "profile", "seed"]
LARGEST = 1e15  # no number of a run is larger
Number = Annotated[float, Field(gt=-LARGEST, lt=LARGEST)]
Numbers = list[Number]


class Part(BaseModel):
    """A part of a record. What is missing, null or unknown is no fault; a known key with another type is."""

    model_config = ConfigDict(strict=True)


class CellForm(Part):
    """Which run it is; complete."""

    task: str
    quality: str
    source: str
    algorithm: str
    variant: str
    profile: str
    seed: Number


class EvaluationForm(Part):
    """One evaluation: a return, a length and perhaps a victory for each episode."""

    step: Number | None = None
    returns: Numbers | None = None
    won: list[bool] | None = None
    lengths: Numbers | None = None


class AlgorithmForm(Part):
    """The method, and its sizes that fall short of the paper's."""

    title: str | None = None
    reduced: dict | None = None


class ProtocolForm(Part):
    """How it was trained and evaluated."""

    steps: Number | None = None
    eval_episodes: Number | None = None
    eval_noise: str | None = None
    data: str | None = None


class DatasetForm(Part):
    """What it learned from."""

    return_mean: Number | None = None
    return_std: Number | None = None
    sha256: str | None = None


class LatencyForm(Part):
    """What a decision takes."""

    joint_ms: Number | None = None


class MachineForm(Part):
    """Where it ran."""

    device: str | None = None
    threads: Number | None = None


class EngineForm(Part):
    """The simulator, and the hash of its reference rollout."""

    rollout: str | None = None


class RecordForm(Part):
    """A run.json."""

    run_id: Annotated[str, StringConstraints(min_length=1)]
    cell: CellForm
    status: str
    reason: str | None = None
    finished: str | None = None
    config_hash: str | None = None
    config: dict | None = None
    evaluations: list[EvaluationForm] | None = None
    algorithm: AlgorithmForm | None = None
    protocol: ProtocolForm | None = None
    dataset: DatasetForm | None = None
    latency: LatencyForm | None = None
    time: dict[str, Number | None] | None = None
    machine: MachineForm | None = None
    engine: EngineForm | None = None
    seeds: Numbers | None = None
    score: Numbers | None = None


def is_valid_record(record: Any) -> bool:
    """Whether a record, as JSON gives it, names its run and how it ended, and has no part of another type."""
    try:
        return RecordForm.model_validate(record).status in ENDED
    except ValidationError:
        return False


def has_returns(record: Record) -> bool:
    """Whether a valid record has evaluations, and each of them has returns."""
    return bool(record.get("evaluations")) and all(evaluation.get("returns") for evaluation in record["evaluations"])
