from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Evaluated

Command = Callable[..., tuple[int, str, str]]


class TestRun:
    def test_it_is_a_run_of_its_own_with_the_whole_report(self, evaluated: Evaluated, tmp_path: Path) -> None:
        assert evaluated.run.info.status == "FINISHED"
        report = next(
            line.split(maxsplit=1)[1] for line in evaluated.out.splitlines() if line[:6] == "Report"
        )
        page = Path(report).read_text(encoding="utf-8")
        for section in (
            "Against portfolios without skill",
            "Returns by score",
            "Holdings",
            "Capacity",
            "Data quality",
        ):
            assert section in page
        assert "Look-ahead inside these scores cannot be audited: they were given (scores.csv)" in page
        assert "1 day of scores.csv after the store ends, 2016-05-31" in page
        assert (
            "Forecast risk: no decisions to look at: the strategy of the backtest, qlib_ext.strategy.topk_dropout.TopkDropout, "
            "trades no target weights." in page
        )
        assert (
            "Training: nothing was trained here, the scores were given (scores.csv) without the model" in page
        )
        assert evaluated.run.data.tags["scores"] == "scores.csv"

    def test_its_scores_are_those_of_the_file(self, evaluated: Evaluated) -> None:
        found = evaluated.client.download_artifacts(evaluated.run.info.run_id, "signal/predictions.parquet")
        kept = pd.read_parquet(found)["score"]
        file = pd.read_csv(evaluated.scores, parse_dates=["date"], index_col="date").stack()
        pd.testing.assert_series_equal(kept, file.reindex(kept.index), check_names=False)
        assert kept.index.get_level_values("datetime").max() == evaluated.store.calendar[-1]

    def test_the_report_can_be_made_again(
        self, evaluated: Evaluated, command: Command, tmp_path: Path
    ) -> None:
        status, _, err = command(
            "report", evaluated.run.info.run_id, "--tracking-uri", evaluated.client.tracking_uri
        )
        assert (status, err.count("\n")) == (0, 1)
        assert err.startswith(f"Next: qlib-ext compare {evaluated.run.info.run_id[:8]}")
        (page,) = tmp_path.rglob("report.html")
        assert "cannot be audited" in page.read_text(encoding="utf-8")

    def test_a_list_asks_for_newer_scores(self, evaluated: Evaluated, command: Command) -> None:
        words = ["recommend", "--run", "mine", "--tracking-uri", evaluated.client.tracking_uri]
        status, _, err = command(*words)
        assert status == 2
        assert "its scores are of scores.csv: give newer ones by `--scores FILE`" in err


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "name it by `--store DIR`"),
            (["--store", "STORE"], "the store has the universes all, csi100, csi300, sse50: choose one by"),
            (["--store", "STORE", "--universe", "csi30"], "did you mean csi300"),
            (
                ["--store", "STORE", "--universe", "all"],
                "the store has the indices SH000016, SH000300, SH000903: name one by `--benchmark CODE`, or say",
            ),
            (
                ["--store", "STORE", "--universe", "csi300", "--benchmark", "SH000301"],
                "`--benchmark` must be an instrument of the store",
            ),
            (
                ["--store", "STORE", "--label", "$close", "--horizon", 2],
                "one of `--label` and `--horizon` must be given, found both",
            ),
            (
                ["--store", "STORE", "--universe", "csi300", "--label", "Ref($close, -1) /"],
                "is no Qlib expression",
            ),
            (
                ["--store", "STORE", "--start", "2017-01-01"],
                "must have scores of trading days of the store from",
            ),
            (["--store", "STORE", "--start", "soon"], "`--start` must be a day such as"),
            (
                ["--store", "STORE", "--column", "volume=v"],
                "`column` must be one of datetime, instrument, score",
            ),
            (["--store", "STORE", "--column", "date"], "`--column` must be as in score=alpha"),
            (["--store", "STORE", "--encoding", "klingon"], "`encoding` must be one such as utf-8"),
            (
                ["--store", "STORE", "--portfolio", "nothing.yaml"],
                "the portfolio `nothing.yaml` must be YAML",
            ),
            (
                ["--store", "STORE", "--universe", "csi300", "--topk", 400],
                "`topk` must be at most",
            ),
        ],
        ids=lambda each: " ".join(map(str, each[-2:])) if isinstance(each, list) else "",
    )
    def test_what_is_wrong_is_one_line_before_a_run(
        self,
        words: list[object],
        said: str,
        evaluated: Evaluated,
        command: Command,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", evaluated.client.tracking_uri)
        root = evaluated.store.root
        status, _, err = command(
            "evaluate", evaluated.scores, *(root if word == "STORE" else word for word in words)
        )
        assert status == 2
        assert said in err
        assert err.count("\n") == 1
        experiment = evaluated.client.get_experiment_by_name("scores")
        assert experiment is None or not evaluated.client.search_runs([experiment.experiment_id])
