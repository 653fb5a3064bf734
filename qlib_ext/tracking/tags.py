"""What a run can be found, grouped and compared by in MLflow's own pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def task_tags(task: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a run, read off the task of a workflow; they are set before the training, so that a run that fails has them.

    The device and the fingerprint of the data are known later: the model and `SignalRecord` set these.

    Parameters
    ----------
    task
        As Qlib reads it: `model`, `dataset` and `record`.

    Returns
    -------
    Where the task says them:

    - `model`: class of the model;
    - `backbone`, `balancer`: their classes, with the method of a balancer that stands for several, `TorchJDAggregator UPGrad`;
    - `tasks`: names of the tasks, the score first, `score + momentum`;
    - `method`: the balancer of several tasks, `single task`, of other models their class, or of an ensemble what it is of,
      `5 seeds of LGBModel`;
    - `loss`: losses of the tasks in the same order;
    - `seed`: of the model, or those of an ensemble's members, `0, 1, 2`;
    - `universe`: the handler's instruments;
    - `strategy`: of the backtest, with its arguments, `TopkDropout topk 50 n_drop 5`;
    - `combinatorial`: that training knows days after those that are scored (`judging` of the dataset).
    """
    model = _mapping(task.get("model"))
    arguments = _mapping(model.get("kwargs"))
    # one around another, as `WalkForward` is, but for an ensemble, which is more than any of its members
    while "class" in _mapping(arguments.get("model")) and "seeds" not in arguments:
        model = arguments["model"]
        arguments = _mapping(model.get("kwargs"))
    dataset = _mapping(_mapping(task.get("dataset")).get("kwargs"))
    handler = _mapping(dataset.get("handler"))
    instruments = _mapping(handler.get("kwargs")).get("instruments")
    tasks = _mapping(arguments.get("tasks"))
    order = sorted(tasks, key=lambda name: name != "score")
    chosen = arguments.get("balancer")
    method = _mapping(_mapping(chosen).get("kwargs")).get("method", "")
    balancer = " ".join(filter(None, (_class(chosen), _class(method) or str(method))))
    seed = ", ".join(dict.fromkeys(_seeds(arguments)))
    found = {
        "model": _class(model),
        "backbone": _class(arguments.get("backbone")),
        "balancer": balancer,
        "tasks": " + ".join(map(str, order)),
        "loss": " + ".join(filter(None, (_loss(_mapping(tasks[name]).get("loss")) for name in order))),
        "method": _ensemble(arguments)
        or ("single task" if len(tasks) == 1 else balancer if tasks else _class(model)),
        "seed": seed,
        "universe": instruments if isinstance(instruments, str) else "",
        "strategy": _strategy(task.get("record")),
        "combinatorial": "trained on days after those that it scores" if dataset.get("judging") else "",
    }
    return {name: value for name, value in found.items() if value}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _class(config: Any) -> str:
    """The class of a mapping in Qlib's form, without its modules; empty where there is none."""
    return str(_mapping(config).get("class", "")).rpartition(".")[2]


def _ensemble(arguments: Mapping[str, Any]) -> str:
    """What an ensemble is of; empty for another model."""
    if (seeds := arguments.get("seeds")) is not None:
        number = len(seeds) if isinstance(seeds, (list, tuple)) else seeds
        return f"{number} seeds of {_class(arguments.get('model'))}"
    members = arguments.get("members")
    if not isinstance(members, list):
        return ""
    return "ensemble of " + ", ".join(
        _class(_mapping(each).get("model", each)) for each in members if isinstance(each, Mapping)
    )


def _seeds(arguments: Mapping[str, Any]) -> list[str]:
    """The seed of a model, or those of an ensemble's members."""
    if (seeds := arguments.get("seeds")) is not None:
        if isinstance(seeds, (list, tuple)):
            return [*map(str, seeds)]
        first = _mapping(_mapping(arguments.get("model")).get("kwargs")).get("seed", 0)
        whole = isinstance(seeds, int) and isinstance(first, int)
        return [str(first + k) for k in range(seeds)] if whole else []
    if isinstance(members := arguments.get("members"), list):
        models = [_mapping(_mapping(each).get("model", each)) for each in members]
        return [seed for model in models for seed in _seeds(_mapping(model.get("kwargs")))]
    seed = arguments.get("seed", arguments.get("random_state"))
    return [] if seed is None else [str(seed)]


def _loss(config: Any) -> str:
    """The class of a loss, with those that it sums: `WeightedSum(CrossEntropy, ApproxNDCG)`."""
    parts = _mapping(_mapping(config).get("kwargs")).get("losses")
    return f"{_class(config)}({', '.join(map(_class, parts))})" if isinstance(parts, list) else _class(config)


def _strategy(records: Any) -> str:
    """Strategy of the first record that has one."""
    for record in [records] if isinstance(records, Mapping) else records or ():
        strategy = _mapping(_mapping(_mapping(record).get("kwargs")).get("strategy"))
        if strategy:
            arguments = _mapping(strategy.get("kwargs"))
            plain = [
                f"{key} {value}" for key, value in arguments.items() if isinstance(value, (int, float, str))
            ]
            return " ".join([_class(strategy), *plain])
    return ""
