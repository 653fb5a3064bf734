"""The Qlib model: any backbone, tasks and balancer that a workflow names."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.tracking import MlflowClient
from qlib.model.base import Model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from qlib_ext.checks import LARGEST_SEED, UserError, at_most, brief, instance, integer, nearest, one_of
from qlib_ext.config.build import build, check_config
from qlib_ext.config.described import described
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.data.dataset import MARKET_STATUS, WINDOWS, DailyPanelDataset
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.model import checkpoint, schedule
from qlib_ext.model.averaging.members import newest_member, shaped
from qlib_ext.model.backbones.base import Backbone
from qlib_ext.model.balancers.base import Balancer
from qlib_ext.model.checkpoint import CheckpointFolder
from qlib_ext.model.evaluator import Evaluator
from qlib_ext.model.memory import oom_as_user_error, reuse_freed_memory
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.schedule import SCORE
from qlib_ext.model.step_log import NonFiniteError
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import Epoch, Trainer
from qlib_ext.paths import writable
from qlib_ext.tracking.active import active_recorder
from qlib_ext.tracking.artifacts import RunArtifacts, stored
from qlib_ext.tracking.runs import connect

logger = logging.getLogger(__name__)

SIZES = ("num_features", "lookback_days")  # of the data, in a backbone
MOST_PARAMETERS = 1_000_000_000  # 4 GB of them, and as much again for what Adam keeps of each, twice


class MultiTaskModel(Rebuildable, Model):
    """Multi-task stock recommendation (MiM-StocR) as a Qlib model.

    Where a workflow has `{class, kwargs}`, Python may have an object, a class or `functools.partial` of one: it stands for the
    call that made it (`qlib_ext.config.described`), and weights are those that the seed draws.

    Parameters
    ----------
    backbone
        `{class, kwargs}` of a `Backbone`. Sizes of the data that it names, `num_features` and `lookback_days`, must be those of
        the dataset.
    tasks
        Name -> `{label, loss, head, classes}`. One of them is `score`, a regression: it ranks the stocks.
    balancer
        `{class, kwargs}` of a `Balancer`.
    trainer
        Fields of `TrainerOptions`: n_epochs, patience, learning_rate, precision, selection, phases, plateau,
        augmentations, averaging.
    seed
        One seed for weights, dropout and the order of days.
    device
        `auto` (CUDA where there is one), `cpu` or `cuda`.
    checkpoint_dir
        Where a checkpoint is kept after every epoch; None keeps none.
    resume
        Take up the newest unfinished run of the same configuration and data: in training where it stopped there,
        else with its trained weights, for the records to be made.
    keep_epochs
        Keep the weights of every epoch, as `training/epochs.safetensors` of the run, so that what each epoch was worth
        on days that training must not read can be measured afterwards.
    start_from
        Id of a run on the same MLflow, of a model of the same network: training begins from its weights, and not from those
        that the seed draws. None begins anew.

    Raises
    ------
    UserError
        From the constructor if anything above does not fit, but for what the sizes of the dataset decide: what the
        backbone and the heads say of their arguments comes from `check_before`, and from `fit` before any long work.
    """

    # The artifacts of a run that a training writes.
    makes = tuple(
        f"training/{name}"
        for name in ("history.parquet", "history.csv", "network.json", "weights.safetensors")
    )

    _network: nn.Module | None = None  # of the class too: Qlib's pickles drop it from an object

    def __init__(
        self,
        backbone: Mapping[str, Any] | Backbone | Callable[..., Backbone],
        tasks: Mapping[str, Mapping[str, Any]],
        balancer: Mapping[str, Any] | Balancer | Callable[..., Balancer],
        trainer: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "auto",
        checkpoint_dir: str | None = "checkpoints",
        resume: bool | int = False,
        keep_epochs: bool = False,
        start_from: str | None = None,
    ) -> None:
        parts: dict[str, Any] = {
            name: described(given, name=name)
            for name, given in {
                "backbone": backbone,
                "tasks": tasks,
                "balancer": balancer,
                "trainer": trainer or {},
            }.items()
        }
        for name, given in parts.items():
            if not isinstance(given, Mapping):
                raise UserError(f"`{name}` must be a mapping, found {brief(given)}")
        if SCORE not in tasks:
            raise UserError(
                f"`tasks` must hold a regression task named `score`, found {', '.join(tasks) or 'none'}"
            )
        self.backbone, self.sizes = _without_sizes(parts["backbone"])
        self.tasks: dict[str, Any] = parts["tasks"]
        self.balancer: Mapping[str, Any] = parts["balancer"]
        self.options = TrainerOptions.of(parts["trainer"])
        self.seed = integer("seed", seed, 0, LARGEST_SEED)
        self.device = _device(device)
        if checkpoint_dir is not None and not (
            isinstance(checkpoint_dir, (str, Path)) and str(checkpoint_dir)
        ):
            raise UserError(
                f"`checkpoint_dir` must be a folder, or null for none, found {brief(checkpoint_dir)}"
            )
        self.checkpoint_dir = checkpoint_dir
        self.resume = bool(one_of("resume", resume, (0, 1)))
        self.keep_epochs = instance("keep_epochs", keep_epochs, bool)
        if keep_epochs and checkpoint_dir is None:
            raise UserError("`keep_epochs` needs a `checkpoint_dir`, found null")
        self.start_from = None if start_from is None else instance("start_from", start_from, str)
        self.history: list[Epoch] = []
        self.classes: dict[str, int] = {}
        check_config(self.backbone, Backbone, name="backbone", num_features=1, lookback_days=1)
        if next(task for task in self._tasks if task.name == SCORE).classification:
            raise UserError("the task `score` must be a regression: its loss is one for classes")
        self._check_balancer()

    # Built once; a pickle of Qlib's drops what begins with an underscore, and they are built again.
    @cached_property
    def _tasks(self) -> tuple[Task, ...]:
        return tuple(Task.from_config(name, config) for name, config in self.tasks.items())

    @cached_property
    def _balancer(self) -> Balancer:
        return build(self.balancer, Balancer, name="balancer")

    def _check_balancer(self) -> None:
        """Take the balancer through the phases."""
        names = [task.name for task in self._tasks]
        self._balancer.setup(names)
        phases = self.options.plan(names)
        for i, phase in enumerate(phases if len(phases) > 1 else ()):
            try:
                self._balancer.begin_phase(phase.tasks)
            except UserError as error:
                raise UserError(
                    f"the balancer does not work with phases[{i}] ({', '.join(phase.tasks)}): {error}"
                ) from error

    def _check_network(self, num_features: int, lookback_days: int, num_market: int) -> None:
        """Build the network where it takes neither memory nor random numbers: on torch's device without data."""
        for size, found in {"num_features": num_features, "lookback_days": lookback_days}.items():
            if self.sizes.get(size, found) != found:
                raise UserError(
                    f"`backbone.{size}` must be {found}, as the dataset has it, or left out; found {self.sizes[size]}"
                )
        classes = {task.name: task.classes or 2 for task in self._tasks if task.classification}
        with torch.device("meta"):
            network = MultiTaskNetwork(
                self.backbone,
                self._sized(classes),
                num_features=num_features,
                lookback_days=lookback_days,
                num_market=num_market,
            )
        at_most(
            "parameters of the network", sum(part.numel() for part in network.parameters()), MOST_PARAMETERS
        )

    def _sized(self, classes: Mapping[str, int]) -> list[Task]:
        """The tasks, with the number of classes of those that predict one."""
        return [replace(task, classes=classes.get(task.name)) for task in self._tasks]

    @property
    def learned(self) -> bool:
        """Whether it has weights, or the history of a training."""
        return self._network is not None or bool(self.history)

    def classifications(self) -> dict[str, bool]:
        """Task -> whether it predicts a class."""
        return {task.name: task.classification for task in self._tasks}

    def check_before(self, spec: DatasetSpec) -> None:
        """Hold segments, labels of the tasks, and the network against what is known of the dataset."""
        for segment in ("train", "valid"):
            spec.require_segment(segment, "MultiTaskModel")
        for task in self._tasks:
            spec.require_label(f"tasks.{task.name}.label", task.label)
        self._check_network(spec.num_features, spec.lookback_days, spec.num_market)

    def check_places(self) -> None:
        """Raise a UserError where no checkpoint could be written."""
        if self.checkpoint_dir is not None:
            writable(
                Path(self.checkpoint_dir), name="`checkpoint_dir`", way_out="name another, or null for none"
            )

    def fit(self, dataset: DailyPanelDataset, reweighter: Any = None) -> None:
        """Train on segment `train`, choose the best epoch on `valid`; `test` is never read.

        Losses, scores and the balancer's quantities of every epoch go to the active Qlib recorder as they come;
        at the end the weights (safetensors), the network's description and the history follow.
        """
        tasks, network, train, valid = self._begin(dataset, reweighter)
        device = torch.device(self.device)
        recorder = active_recorder()
        if self.start_from is not None:
            self._begin_from(network, dataset, connect() if recorder is None else recorder.client)
        trainer = Trainer(network, tasks, self._balancer, self.options, seed=self.seed, device=device)
        if recorder is not None:
            recorder.set_tags(device=self.device, precision=self.options.precision)
        folder = None
        if self.checkpoint_dir is not None:
            folder = CheckpointFolder(self.checkpoint_dir, self._identity(dataset))
        logger.info(
            "training %s on %s: %d days, %d parameters, %s",
            ", ".join(task.name for task in tasks),
            device,
            len(train),
            sum(parameter.numel() for parameter in network.parameters()),
            self.options.precision,
        )

        def on_epoch(record: Epoch) -> None:
            logger.info("%s", _line(record))
            if recorder is not None:
                recorder.log_metrics(
                    step=int(record["epoch"]), **{k: v for k, v in record.items() if k != "epoch"}
                )

        self.history = trainer.fit(
            train,
            valid,
            folder=folder,
            resume=self.resume,
            keep_epochs=self.keep_epochs,
            on_epoch=on_epoch,
        )
        self._network = trainer.best_network()
        if recorder is not None:
            self._save(recorder, dataset)
            if self.keep_epochs and trainer.checkpoint_path is not None:
                self._save_epochs(recorder, trainer.checkpoint_path)
        if trainer.checkpoint_path is not None:
            close = partial(checkpoint.close, trainer.checkpoint_path)
            if hasattr(recorder, "on_finished"):  # the records are still to come
                recorder.on_finished.append(close)
            else:
                close()

    def _begin(
        self, dataset: DailyPanelDataset, reweighter: Any
    ) -> tuple[list[Task], MultiTaskNetwork, DailyPanels, DailyPanels]:
        """Check what `fit` is given; the tasks, the network as the seed draws it, and the days of train and validation."""
        if reweighter is not None:
            raise UserError(
                f"{type(self).__name__} weighs all stocks of a day alike; `reweighter` must be left out"
            )
        if not isinstance(dataset, DailyPanelDataset):
            raise UserError(f"`dataset` must be a DailyPanelDataset, found {type(dataset).__name__}")
        for segment in ("train", "valid"):
            if segment not in dataset.segments:
                raise UserError(f"`segments` must hold `{segment}`, found {', '.join(dataset.segments)}")
        features = dataset.handler.features
        self._check_network(len(features.names), features.lookback_days, dataset.arguments.num_market)
        for task in self._tasks:
            _check_label(task, dataset)
        torch.manual_seed(self.seed)
        device = torch.device(self.device)
        reuse_freed_memory()
        with oom_as_user_error(f"moving the market to {device}"):
            train, valid = dataset.panels("train", device), dataset.panels("valid", device)
        tasks = self._count_classes(train, valid)
        return tasks, self._build_network(dataset, tasks), train, valid

    def initialise(self, dataset: DailyPanelDataset) -> None:
        """Take the untrained weights that the seed draws, so that `predict` shows what a score depends on.

        Parameters
        ----------
        dataset
            Gives the sizes of the features, and the classes of the labels of `train` and `valid`.

        Raises
        ------
        UserError
            If a task's label is not among those of the dataset, or the backbone does not fit the features.
        """
        torch.manual_seed(self.seed)
        for task in self._tasks:
            _check_label(task, dataset)
        segments = [dataset.panels(name) for name in ("train", "valid") if name in dataset.segments]
        self._network = self._build_network(dataset, self._count_classes(*segments)).to(self.device)

    def restore(self, folder: str | Path, dataset: DailyPanelDataset) -> None:
        """Take the weights that `fit` left among a run's artifacts, so that `predict` needs no training.

        Parameters
        ----------
        folder
            The run's `training`, with `weights.safetensors` and `network.json`.
        dataset
            What will be scored. Its windows must be those of the training; their statistics are the caller's.

        Raises
        ------
        UserError
            If a file is missing or unreadable, or the weights are of another network or other features than those
            that this model and the dataset have; the message names what differs.
        """
        described, weights = read_weights(Path(folder))
        features = dataset.handler.features
        for what, trained, now in (
            ("fields", list(described["fields"]), list(features.names)),
            ("lookback_days", described["lookback_days"], features.lookback_days),
        ):
            if trained != now:
                raise UserError(f"the model was trained on `{what}` {trained}, found {now}: train it again")
        self.classes = {
            task.name: int(described["classes"][task.name]) for task in self._tasks if task.classification
        }
        network = shaped(self._build_network(dataset, self._sized(self.classes)), weights)
        take_weights(network, weights, "they are of another version of the package; train the model again")
        self._network = network.to(self.device)

    def score_day(self, panel: DailyPanel) -> np.ndarray:
        """Scores `[N]` of one day, in float32, of the features that the panel has: those of the market, or changed ones.

        Raises
        ------
        UserError
            As from `predict`.
        """
        if self._network is None:
            raise RuntimeError("the model has no weights yet: call `fit` first")
        self._network.eval()
        with torch.inference_mode(), oom_as_user_error(f"scoring {panel.date:%Y-%m-%d}"):
            return _finite(SCORE, self._network(panel)[SCORE].cpu().numpy(), panel)

    def predict(self, dataset: DailyPanelDataset, segment: str = "test") -> pd.DataFrame:
        """Score every stock of every day of a segment, in float32.

        Returns
        -------
        DataFrame
            Indexed (datetime, instrument). Column `score` first; a classification task named X with C classes adds
            its probabilities X_0 ... X_{C-1}.

        Raises
        ------
        UserError
            If a prediction is not finite, which no record could rank, or the device has no room.
        """
        if self._network is None:
            raise RuntimeError("the model has no weights yet: call `fit` first")
        self._network.eval()
        reuse_freed_memory()
        tasks = {task.name: task for task in self._tasks}
        parts: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode(), oom_as_user_error(f"scoring `{segment}`"):
            panels: DailyPanels = dataset.panels(segment, self.device)
            for panel in panels:
                for name, prediction in self._network(panel).items():
                    if tasks[name].classification:
                        prediction = tasks[name].probabilities(prediction)
                    parts.setdefault(name, []).append(_finite(name, prediction.cpu().numpy(), panel))
        columns: dict[str, np.ndarray] = {SCORE: np.concatenate(parts[SCORE])}
        for name, chunks in parts.items():
            values = np.concatenate(chunks)
            if tasks[name].classification:
                columns.update({f"{name}_{c}": values[:, c] for c in range(values.shape[1])})
            elif name != SCORE:
                columns[name] = values
        return pd.DataFrame(columns, index=panels.index())

    def learning_curve(self, dataset: DailyPanelDataset, epochs: str | Path, segment: str) -> pd.DataFrame:
        """What each epoch of a training was worth on a segment, measured once the training is over.

        Parameters
        ----------
        dataset
            That of the training.
        epochs
            The run's `training/epochs.safetensors`, which a model with `keep_epochs` leaves.
        segment
            Of the dataset; training measures `train` and `valid` itself.

        Returns
        -------
        DataFrame
            A row an epoch: `epoch`, `<segment>/loss/<task>`, and IC, RankIC and accuracies as in the history.
        """
        self.initialise(dataset)
        network, tasks = self._network, self._sized(self.classes)
        assert network is not None
        panels = dataset.panels(segment, torch.device(self.device))
        days = panels.labelled(tuple(task.label for task in tasks))
        evaluator = Evaluator(network, tasks, self.options.precision)
        rows = []
        for epoch, weights in enumerate(checkpoint.by_epoch(load_file(epochs))):
            evaluator.network = shaped(network, weights).to(self.device)
            evaluator.network.load_state_dict(weights)
            losses, scores = evaluator.losses_and_scores(panels, days)
            named = {f"loss/{name}": value for name, value in losses.items()} | scores
            rows.append({"epoch": epoch} | {f"{segment}/{name}": value for name, value in named.items()})
        self._network = None  # the last epoch's weights are not those that were chosen
        return pd.DataFrame(rows)

    def _count_classes(self, *segments: DailyPanels) -> list[Task]:
        """The tasks, with the number of classes that the labels of the segments have."""
        self.classes = {
            task.name: _count_classes(task, *segments) for task in self._tasks if task.classification
        }
        return self._sized(self.classes)

    def _build_network(self, dataset: DailyPanelDataset, tasks: list[Task]) -> MultiTaskNetwork:
        features = dataset.handler.features
        return MultiTaskNetwork(
            self.backbone,
            tasks,
            num_features=len(features.names),
            lookback_days=features.lookback_days,
            num_market=dataset.arguments.num_market,
        )

    def _begin_from(
        self, network: MultiTaskNetwork, dataset: DailyPanelDataset, client: MlflowClient
    ) -> None:
        """Give a network the weights of the run `start_from`."""
        assert self.start_from is not None
        with tempfile.TemporaryDirectory() as folder:
            paths = ("training/network.json", "training/weights.safetensors")
            if [*stored(client, self.start_from, paths)] != [*paths]:
                raise UserError(
                    f"`start_from` must be a run with {' and '.join(paths)}, found {self.start_from}"
                )
            kept = RunArtifacts.download(client, self.start_from, paths, Path(folder))
            described, weights = read_weights(kept.root / "training")
        fields = list(dataset.handler.features.names)
        if described["fields"] != fields:
            raise UserError(
                f"`start_from` must be a run with the fields {fields}, found {described['fields']} in {self.start_from}"
            )
        take_weights(
            network, newest_member(weights), f"name another run than {self.start_from} to start from, or none"
        )

    def _identity(self, dataset: DailyPanelDataset) -> dict[str, Any]:
        """What decides the weights. How long the last phase may go on is not in it: a longer run continues a shorter one."""
        options = {k: v for k, v in vars(self.options).items() if k not in ("n_epochs", "phases")}
        if self.options.averaging is None:  # so that earlier checkpoints are found
            del options["averaging"]
        return {
            "backbone": self.backbone,
            "tasks": self.tasks,
            "balancer": self.balancer,
            "trainer": options,
            "phases": schedule.identity(self.options.plan(list(self.tasks))),
            "seed": self.seed,
            "device": self.device,
            **({} if self.start_from is None else {"start_from": self.start_from}),
            "data": dataset.identity(),
        }

    def _save(self, recorder: Any, dataset: DailyPanelDataset) -> None:
        assert self._network is not None
        features = dataset.handler.features
        description = {
            "backbone": self.backbone,
            "tasks": self.tasks,
            "classes": self.classes,
            "fields": list(features.names),
            "lookback_days": features.lookback_days,
        }
        best = [record["epoch"] for record in self.history if record["best"]]
        if best:
            description["best_epoch"] = int(max(best))
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            weights = {
                name: value.cpu().clone().contiguous() for name, value in self._network.state_dict().items()
            }
            weights.update(
                {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in dataset.statistics().items()}
            )
            checkpoint.write_tensors(root / "weights.safetensors", weights)
            description["weights_checksum"] = checkpoint.checksum("", weights)
            (root / "network.json").write_text(json.dumps(description, indent=2, default=str))
            if self.history:  # a soup has none
                frame = history_frame(self.history)
                frame.to_parquet(root / "history.parquet", index=False)
                frame.to_csv(root / "history.csv", index=False)
            for path in sorted(root.iterdir()):
                recorder.log_artifact(str(path), "training")

    def _save_epochs(self, recorder: Any, path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "epochs.safetensors"
            checkpoint.write_tensors(file, checkpoint.kept_epochs(path, len(self.history)))
            recorder.log_artifact(str(file), "training")


def _without_sizes(backbone: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """A backbone without the sizes of the data, which the dataset gives; and those that it names."""
    kwargs = backbone.get("kwargs")
    if not isinstance(kwargs, Mapping) or not kwargs.keys() & SIZES:
        return backbone, {}
    kept = {key: value for key, value in kwargs.items() if key not in SIZES}
    return {**backbone, "kwargs": kept}, {key: kwargs[key] for key in SIZES if key in kwargs}


def read_weights(root: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What `fit` left in a run's `training`: the description of the network, and its weights."""
    try:
        described = json.loads((root / "network.json").read_text(encoding="utf-8"))
        weights = load_file(root / "weights.safetensors")
        if described.get("weights_checksum") not in (None, checkpoint.checksum("", weights)):
            raise ValueError("their checksum is another: they were damaged after they were written")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the weights in {root} cannot be read: {error}: train the model again") from error
    return described, weights


def take_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], way_out: str) -> None:
    """Load weights, which a run keeps beside the statistics of its features; a UserError where they do not fit."""
    own = {name: value for name, value in weights.items() if not name.startswith((WINDOWS, MARKET_STATUS))}
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in own.items()}
    if expected != found:
        wrong = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
        raise UserError(
            f"the weights do not fit the network that the configuration describes, in {', '.join(wrong[:3])} and "
            f"{max(0, len(wrong) - 3)} more: {way_out}"
        )
    network.load_state_dict(own)


def _finite(name: str, predictions: np.ndarray, panel: DailyPanel) -> np.ndarray:
    if not np.isfinite(predictions).all():
        raise NonFiniteError(
            f"the task {name} has predictions that are no numbers for {int((~np.isfinite(predictions)).sum())} of "
            f"{predictions.size} values on {panel.date:%Y-%m-%d}: look for infinite prices, or train again with a lower "
            "`learning_rate`"
        )
    return predictions


def history_frame(history: list[Epoch]) -> pd.DataFrame:
    """The training's history as a table: one row an epoch, `best` as bool; `phase` where there are several."""
    frame = pd.DataFrame(history)
    frame["epoch"] = frame["epoch"].astype(int)
    frame["best"] = frame["best"].astype(bool)
    if "phase" in frame:
        frame["phase"] = frame["phase"].astype(int)
    return frame


def _line(record: Epoch) -> str:
    losses = " ".join(
        f"{key.rpartition('/')[2]} {value:.4f}/{record['valid' + key.removeprefix('train')]:.4f}"
        for key, value in record.items()
        if key.startswith("train/loss/")
    )
    seconds = record["seconds/train"] + record["seconds/evaluate"]
    phase = f" of phase {int(record['phase'])}" if "phase" in record else ""
    return (
        f"epoch {int(record['epoch'])}{phase}: loss train/valid {losses}; valid IC {record['valid/ic']:.4f} "
        f"RankIC {record['valid/rank_ic']:.4f}; {seconds:.0f} s{' *' if record['best'] else ''}"
    )


def _check_label(task: Task, dataset: DailyPanelDataset) -> None:
    known = dataset.label_names
    if task.label not in known:
        raise UserError(
            f"`tasks.{task.name}.label` must be one of the dataset's labels ({', '.join(known)}), "
            f"found {brief(task.label)}{nearest(task.label, known)}"
        )


def _count_classes(task: Task, *segments: DailyPanels) -> int:
    """C of a classification task, after a look at the labels of the segments that it is trained and chosen on.

    A loss takes labels for indices and looks at none: those that it learns are checked here too.
    """
    kinds = {"": DailyPanels.raw_matrix, " as training sees it": DailyPanels.matrix}
    seen = 1
    for told, matrix in kinds.items():
        labels = np.concatenate([matrix(panels, task.label).ravel() for panels in segments])
        labels = labels[~np.isnan(labels)]
        wrong = labels[~np.isfinite(labels) | (labels < 0) | (labels != np.floor(labels))]
        if len(wrong):
            raise UserError(
                f"`tasks.{task.name}.label` must be a label of classes 0, 1, ..., found {wrong[0]:g} in "
                f"{task.label}{told}: name another label, or take a loss for values"
            )
        seen = max(seen, int(labels.max(initial=1)))
    if task.classes is not None and seen >= task.classes:
        raise UserError(
            f"`tasks.{task.name}.classes` must be at least {seen + 1}, as {task.label} holds the class {seen}; "
            f"found {task.classes}"
        )
    return task.classes or seen + 1


def _device(device: str) -> str:
    one_of("device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "`device` is cuda, and this torch finds no CUDA device: use `auto` or `cpu` (DEVICE=cpu)"
        )
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
