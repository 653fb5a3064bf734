"""What a run was set to, as MLflow's parameters say it, without what cannot move its results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from qlib_ext.checks import UserError, nearest
from qlib_ext.config.renamed import new_name

ABSENT = "\N{EN DASH}"
TASKS = "tasks"
PORTFOLIO = "portfolio"
STRATEGY = "record.BacktestRecord.strategy.class"
_OPTIMISER = "record.BacktestRecord.strategy.kwargs.portfolio.optimiser"
GIVEN = ("model.kwargs.path", "model.kwargs.run")  # what gave the scores of a run that made none

# How a run was made, not what.
_MACHINERY = re.compile(
    r"cmd-sys\.argv|_QLIB_.*|model\.kwargs\.(checkpoint_dir|device|resume|n_jobs|num_threads|tracking_uri|verbose\w*)"
    r"|dataset\.kwargs\.(cache|record_fields)"
)
_FEATURES = "dataset.kwargs.handler.kwargs.features"
_NO_FEATURES = "qlib_ext.features.no_features.NoFeatures"
_SEED = re.compile(r"(.*\.)?(seed|random_state)")
_ITEM = re.compile(r"(.+?)\.(\d+)(\..+)")
_RECORD = re.compile(r"record(?:\.([^.]+))?\.((?:class|module_path|kwargs)(?:\..+)?)")
_TASK = re.compile(r"model\.kwargs\.tasks\.([^.]+)\.")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_DATE = re.compile(r"(?:datetime\.)?(?:date|datetime)\((\d{4}), (\d{1,2}), (\d{1,2})(?:, 0, 0)?\)")

# Of the records, the arguments that decide the figures that are compared; other records only add artifacts.
_COUNTS = {
    "qlib_ext.records.ranking.RankingRecord": re.compile(r"labels"),
    "qlib_ext.records.backtest.BacktestRecord": re.compile(
        r"(strategy|backtest|start|end|days_per_year)(\..+)?"
    ),
}


def settings(params: Mapping[str, str]) -> dict[str, str]:
    """The settings that may move the results of a run, the seed apart.

    Parameters
    ----------
    params
        MLflow's parameters of a run of a Qlib workflow: nested keys joined by dots, values as text.

    Returns
    -------
    Key -> value. Left out are seeds, where caches and checkpoints lie, the device and the command. Of the records those
    arguments stay that decide the figures compared, under `record.<Class>.<argument>`, wherever the record stood in its
    list. `tasks` names the tasks of a multi-task model, `portfolio` what finds the weights of one. Dates are written as such: `[2017-01-01, 2020-12-31]`,
    classes of earlier versions by their names of today.
    """
    params = _by_class({key: new_name(value) or value for key, value in params.items()})
    found: dict[str, str] = {}
    for key, value in params.items():
        record = _RECORD.fullmatch(key)
        if record is not None:
            named = _of_record(params, record[1], record[2])
            if named is not None:
                found[named] = _readable(value)
        elif key != "record" and not _MACHINERY.fullmatch(key) and not _SEED.fullmatch(key):
            found[key] = _readable(value)
    if found.get(f"{_FEATURES}.class") == _NO_FEATURES:  # what gave the scores is named by the model
        found = {key: value for key, value in found.items() if not key.startswith(_FEATURES)}
    tasks = [match[1] for key in params if (match := _TASK.match(key))]
    if tasks:
        found[TASKS] = " + ".join(sorted(dict.fromkeys(tasks), key=lambda name: (name != "score", name)))
    for key in (
        f"{_OPTIMISER}.class",
        f"{_OPTIMISER}.kwargs.method.class",
    ):  # the second is what the first only carries
        if key in found:
            found[PORTFOLIO] = shown(key, found[key])
    return found


def seed_of(params: Mapping[str, str], tags: Mapping[str, str]) -> str:
    """The seed of a run's model; an en dash where it has none."""
    own = [key for key in params if key.startswith("model.") and _SEED.fullmatch(key)]
    if own:
        return params[min(own, key=lambda key: key.count("."))]
    return tags.get("seed", ABSENT)


def canonical(value: str) -> str:
    """One form of a value for all its spellings: `1e-3` is `0.001`."""
    try:
        return repr(float(value))
    except ValueError:
        return value


def shown(key: str, value: str) -> str:
    """A value for a reader: of a class its name, without the modules that it lies in; of a file its name, too."""
    if key.endswith("class") and _DOTTED.fullmatch(value):
        return value.rpartition(".")[2]
    if key in GIVEN:
        return f"scores of {value.replace(chr(92), '/').rpartition('/')[2][:40]}"
    return value


def path(key: str) -> tuple[str, ...]:
    """A key without the words that say nothing: `model.kwargs.trainer.n_epochs` is (model, trainer, n_epochs)."""
    parts = tuple(part for part in key.split(".") if part not in ("kwargs", "class"))
    return parts or (key,)


def label(key: str, others: Iterable[str]) -> str:
    """The shortest end of a key's path that tells it from the other keys: `n_epochs`, `momentum loss`."""
    own = path(key)
    rest = [path(other) for other in others if other != key]
    for length in range(1, len(own) + 1):
        end = own[-length:]
        if all(other[-length:] != end for other in rest):
            return " ".join(end)
    return key


def find_key(wanted: str, keys: Iterable[str]) -> str:
    """The key that a person means: the whole key, or the end of its path, `kwargs` and `class` left out or not.

    Raises
    ------
    UserError
        If no key or several are called so; the message lists them.
    """
    known = [*dict.fromkeys(keys)]
    if wanted in known:
        return wanted
    asked = path(wanted)
    meant = [key for key in known if path(key)[-len(asked) :] == asked or key.endswith("." + wanted)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise UserError(
            f"`--by` must name one key, found {len(meant)} for `{wanted}`: {', '.join(sorted(meant))}"
        )
    names = [*known, *(".".join(path(key)[-k:]) for key in known for k in (1, 2))]
    raise UserError(
        f"`--by` must name a parameter or a tag of the runs, found `{wanted}`{nearest(wanted, dict.fromkeys(names))}; "
        "MLflow shows them all beside each run"
    )


def _by_class(params: Mapping[str, str]) -> dict[str, str]:
    """Items of lists under their classes, as runs have them now; older runs have their places: `record.4.class`."""
    renamed: dict[str, str] = {}
    taken: dict[str, str] = {}  # new name -> old name
    for key, value in params.items():
        while (item := _ITEM.fullmatch(key)) and (dotted := params.get(f"{item[1]}.{item[2]}.class")):
            old, name = f"{item[1]}.{item[2]}", dotted.rpartition(".")[2]
            number = 1
            new = f"{item[1]}.{name}"
            while taken.setdefault(new, old) != old:
                number += 1
                new = f"{item[1]}.{name}-{number}"
            key = new + item[3]
        renamed[key] = value
    return renamed


def _of_record(params: Mapping[str, str], item: str | None, rest: str) -> str | None:
    """The key of a record's argument by the record's class; None where it does not count."""
    where = "record" if item is None else f"record.{item}"
    record = ".".join(filter(None, [params.get(f"{where}.module_path"), params.get(f"{where}.class")]))
    argument = rest.removeprefix("kwargs.")
    pattern = _COUNTS.get(record)
    if pattern is None or argument == rest or not pattern.fullmatch(argument):
        return None
    return f"record.{item or record.rpartition('.')[2]}.{argument}"


def _readable(value: str) -> str:
    dated = _DATE.sub(lambda found: f"{found[1]}-{int(found[2]):02}-{int(found[3]):02}", value)
    return re.sub(r"'([^'\"]*)'", r"\1", dated) if dated.startswith("[") else dated
