"""A whole workflow: its own keys, what it tells Qlib, and its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qlib.config import MODE_CONF, REG_CN, REG_TW, REG_US, C
from qlib.workflow.expm import ExpManager

from qlib_ext.checks import LARGEST, UserError, brief, instance, integer, nearest, one_of, short
from qlib_ext.config.build import check_config, in_one_form
from qlib_ext.config.security import check_classes
from qlib_ext.terminal import visible
from qlib_ext.tracking.runs import checked_uri

KEYS = ("experiment_name", "qlib_init", "task", "sys", "BASE_CONFIG_PATH")
# What a workflow may hold beside these: anchors that several places share, and what a person notes.
FREE = ("market", "benchmark")
MOST_KERNELS = 1_024  # processes
LONGEST_NAME = 500  # of an experiment, as MLflow takes it
OF_MANAGER = ("uri", "default_exp_name")
# What Qlib reads of `qlib_init` and has no default of.
WITHOUT_DEFAULT = (
    "auto_mount",
    "clear_mem_cache",
    "custom_ops",
    "dataset_cache",
    "default_conf",
    "limit_threshold",
    "mount_path",
    "qlib_reset_version",
    "region",
    "skip_if_reg",
    "trade_unit",
    "deal_price",
)


def check_settings(config: Any) -> None:
    """Check the keys of a workflow and what it tells Qlib; the task is checked by `check_task`.

    Raises
    ------
    UserError
        If a key is misspelt or missing, or a setting of Qlib is unknown or of the wrong type.

    Notes
    -----
    A key of a person's own, to hang YAML anchors on, must be a mapping, a list or begin with `x-`; a single value under
    an unknown key is taken for a misspelling.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"a workflow must be a mapping with {', '.join(KEYS[:3])}, found {brief(config)}")
    for key, value in config.items():
        known = (*KEYS, *FREE)
        hint = nearest(str(key), known)
        if key in known or str(key).startswith("x-"):
            continue
        if hint or not isinstance(value, (Mapping, list)):
            raise UserError(f"a workflow has no key `{key}`{hint}; it has {', '.join(KEYS)}")
    for key in ("qlib_init", "task"):
        if key not in config:
            raise UserError(f"a workflow must have `{key}`, found {', '.join(map(str, config)) or 'nothing'}")
    if "experiment_name" in config and not (
        isinstance(config["experiment_name"], str)
        and config["experiment_name"].strip()
        and config["experiment_name"] == visible(config["experiment_name"])
    ):
        raise UserError(f"`experiment_name` must be a name, found {brief(config['experiment_name'])}")
    short("experiment_name", config.get("experiment_name", ""), LONGEST_NAME)
    _check_qlib(config["qlib_init"])


def _check_qlib(given: Any) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"`qlib_init` must be a mapping with provider_uri and region, found {brief(given)}")
    defaults = (C.__dict__["_default_config"], *MODE_CONF.values())
    known = sorted({*WITHOUT_DEFAULT, *(key for mode in defaults for key in mode)})
    for key in given:
        if key not in known:
            raise UserError(f"`qlib_init` has no place for `{key}`{nearest(str(key), known)}")
    if "region" in given:
        one_of("qlib_init.region", given["region"], (REG_CN, REG_US, REG_TW))
    if "kernels" in given:
        integer("qlib_init.kernels", given["kernels"], 1, MOST_KERNELS)
    if "provider_uri" in given and not isinstance(given["provider_uri"], Mapping):
        instance("qlib_init.provider_uri", given["provider_uri"], str)
    check_classes(given, "qlib_init")
    if "exp_manager" in given:
        _check_manager(given["exp_manager"])
    check_numbers(given, "qlib_init")


def check_numbers(config: Any, name: str) -> None:
    """Raise a UserError where a number, at any depth, is larger than any that means something.

    Most arguments have a bound of their own; this one holds for those of Qlib's classes and of a user's.

    Parameters
    ----------
    config
        A part of a workflow.
    name
        Where it stands, for messages.
    """
    seen: set[int] = set()  # YAML's aliases: the same part may stand in many places
    waiting = [(name, config)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > LARGEST:
            raise UserError(f"`{where}` must be a number within {LARGEST:g}, found {brief(value)}")
        if isinstance(value, (Mapping, list)) and id(value) not in seen:
            seen.add(id(value))
            parts = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [
                (f"{where}.{key}" if isinstance(value, Mapping) else f"{where}[{key}]", part)
                for key, part in parts
            ]


def _check_manager(config: Any) -> None:
    name = "qlib_init.exp_manager"
    kind, kwargs = check_config(in_one_form(config, name), ExpManager, name=name)
    for key in kwargs if kind.__module__.startswith(("qlib.", "qlib_ext.")) else ():
        one_of(f"key of {name}.kwargs", key, OF_MANAGER)
    if kwargs.get("uri") is not None:
        checked_uri(kwargs["uri"])
    experiment = kwargs.get("default_exp_name", "Experiment")
    if not isinstance(experiment, str) or not experiment.strip():
        raise UserError(f"`{name}.kwargs.default_exp_name` must be a name, found {brief(experiment)}")
