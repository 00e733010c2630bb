"""The form of a run's record: what store, reports and commands rely on. A record of another form counts as damaged."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

Record = dict[str, Any]
OWN = "own"  # the play in which a method samples as its authors do
PLAY_OF_NOISE = {"fresh": OWN, "zero": "zero", "fixed": "fixed"}  # older records name the noise of evaluation
TRAINED = "trained"  # without an environment: there is a policy, and no return
FINISHED = ("done", TRAINED)  # of them, those of a run that came to its end
ENDED = ("done", "failed", "diverged", TRAINED)  # the statuses of a stored run
LARGEST = 1e15  # no number of a run is larger
Number = Annotated[float, Field(gt=-LARGEST, lt=LARGEST)]
Numbers = list[Number]
Scale = Annotated[Numbers, Field(min_length=2, max_length=2), AfterValidator(lambda ends: _rising(*ends))]
STRICT = ConfigDict(strict=True)


def _rising(low: float, high: float) -> list[float]:
    if low >= high:
        raise ValueError("the return that counts as 0 must be below the one that counts as 1")
    return [low, high]


def _part(name: str, needed: Mapping[str, Any] | None = None, **types: Any) -> Any:
    """A part of a record. What is missing, null or unknown is no fault, unless needed; a key of another type is."""
    fields: dict[str, Any] = {key: (kind | None, None) for key, kind in types.items()}
    fields |= {key: (kind, ...) for key, kind in (needed or {}).items()}
    return create_model(name, __config__=STRICT, **fields)


class Cell(BaseModel):
    """Which run it is; every key is needed."""

    model_config = STRICT
    task: str
    quality: str
    source: str
    algorithm: str
    variant: str
    profile: str
    seed: Number


CELL = list(Cell.model_fields)


class Run(
    _part(
        "Parts",
        reason=str,
        finished=str,
        config_hash=str,
        config=dict,
        code_sums=dict[str, str],
        evaluations=list[
            _part("Evaluation", {"step": Number}, play=str, returns=Numbers, won=list[bool], lengths=Numbers)
        ],
        held_out=list[_part("HeldOut", {"step": Number, "play": str, "agreement": Number})],
        algorithm=_part("Algorithm", title=str, reduced=dict, acting_rule=str),
        protocol=_part(
            "Protocol",
            steps=Number,
            eval_episodes=Number,
            eval_noise=str,
            plays=list[str],
            timeout_bootstrap=bool,
            data=str,
            data_share=Number,
        ),
        dataset=_part("Dataset", return_mean=Number, return_std=Number, sha256=str, made_from=str),
        value=dict[str, Number],
        latency=_part("Latency", joint_ms=Number),
        time=dict[str, Number | None],
        machine=_part("Machine", device=str, threads=Number),
        engine=dict[str, str | None],
        seeds=Numbers,
        score=Scale,
    )
):
    """A run.json: these three keys are needed, its other parts may be missing."""

    cell: Cell
    status: str
    run_id: Annotated[str, Field(min_length=1)]


def is_valid_record(record: Any) -> bool:
    """Whether a record, as JSON gives it, names its run and how it ended, and has no part of another type."""
    try:
        return Run.model_validate(record).status in ENDED
    except ValidationError:
        return False


def has_returns(record: Record) -> bool:
    """Whether a valid record has evaluations, and each of them has returns."""
    return bool(record.get("evaluations")) and all(evaluation.get("returns") for evaluation in record["evaluations"])


def plays_of(protocol: Mapping[str, Any]) -> list[str]:
    """How the policies of a run were played, from its protocol."""
    return list(protocol.get("plays") or [PLAY_OF_NOISE.get(protocol.get("eval_noise") or "", OWN)])


def with_plays(record: Record) -> Record:
    """The record with a play in every evaluation, which older ones do not name."""
    (first, *_) = plays_of(record.get("protocol") or {})
    evaluations = [e | {"play": e.get("play") or first} for e in record.get("evaluations") or []]
    return record | {"evaluations": evaluations} if evaluations else record


def strayed(value: Mapping[str, Any] | None) -> bool:
    """Whether a critic's mean value on the data is not within half to twice the data's own discounted return."""
    if not value or "value" not in value or not value.get("data_value"):
        return False
    share = value["value"] / value["data_value"]
    return share < 0.5 or share > 2.0  # NaN: an older run, which does not say


def scale(record: Record) -> tuple[float, float]:
    """The returns that count as 0 and 1: the task's own, or 0 and the mean of the data.

    Where that mean is negative, 0 is as far below it as it is below no return, so that more is better there, too.
    """
    if record.get("score"):
        low, high = record["score"]
        return low, high
    mean = (record.get("dataset") or {}).get("return_mean") or 1.0
    return min(0.0, 2 * mean), mean


def by_play(record: Record) -> dict[str, list[Record]]:
    """The evaluations of a record that has plays, by play and in order."""
    found: dict[str, list[Record]] = {}
    for evaluation in record.get("evaluations") or []:
        found.setdefault(evaluation["play"], []).append(evaluation)
    return found
