"""`qlib-ext check`: what is wrong with a workflow in one line, and nothing is run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qlib_ext.cli import main
from qlib_ext.market.synthetic.sample import SampleMarket

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "workflows" / "mimstocr_csi300.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checked") / "tiny"
    SampleMarket(seed=3, stocks=20, start="2014-06-02", end="2017-03-31").write(root)
    return root


@pytest.fixture
def said(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    """What the command says of a text, and its exit status."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"QLIB_DATA": str(market), "TOPK": "5", "N_DROP": "1", "HIDDEN_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)

    def of(text: str) -> tuple[int, str]:
        (tmp_path / "workflow.yaml").write_text(text, encoding="utf-8")
        monkeypatch.setattr("sys.argv", ["qlib-ext", "check", "workflow.yaml"])
        with pytest.raises(SystemExit) as ended:
            main.main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), "\n".join([*shown.out.splitlines(), *shown.err.splitlines()])

    return of


class TestCheck:
    def test_a_shipped_workflow_is_right(
        self, said: Callable[[str], tuple[int, str]], tmp_path: Path
    ) -> None:
        assert said(TEXT) == (
            0,
            "workflow.yaml: nothing is wrong with it that can be known before its data are read\nNext: qrun workflow.yaml",
        )
        assert {path.name for path in tmp_path.iterdir()} == {"workflow.yaml"}  # no run, no checkpoint

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("task:", "tasks:", "a workflow has no key `tasks` (did you mean task?)"),
            ("qlib_init:", "qlib-init:", "a workflow has no key `qlib-init` (did you mean qlib_init?)"),
            ("2014-12-31", "2014-12-32", "has a value that cannot be read: day is out of range for month"),
            ("region: cn", "region: ch", "`qlib_init.region` must be one of cn, tw, us, found 'ch'"),
            ("region: cn", "region: cn\n  region: us", "found duplicate key"),
            ("momentum_line.MomentumLine", "momentum_line.MomentLine", "did you mean MomentumLine"),
            ("RETURN: Ref", "RETURN: (open)('planted', 'w') and Ref", "is no Qlib expression"),
            ("{{ SEED | default(0, true) }}", "{{ lipsum.__globals__['os'].mkdir('planted') }}", "is no template"),
            ("    class: qlib_ext.model.multi_task.MultiTaskModel", "    class: planted.Model", "QLIB_EXT_PACKAGES=planted"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_one_line(
        self, old: str, new: str, message: str, said: Callable[[str], tuple[int, str]], tmp_path: Path
    ) -> None:
        assert old in TEXT
        (tmp_path / "planted.py").write_text("raise SystemError('imported')")
        status, shown = said(TEXT.replace(old, new))
        assert status == 2
        assert message in shown
        assert shown.startswith("error: ")
        assert "\n" not in shown
        assert not (tmp_path / "planted").exists()

    @pytest.mark.parametrize(
        ("manager", "message"),
        [
            ("3", "`qlib_init.exp_manager` must be a mapping with `class`"),
            ("[]", "`qlib_init.exp_manager` must be a mapping with `class`"),
            ("{class: 5}", "`qlib_init.exp_manager.class` must be a dotted"),
            ("{class: qlib_ext.workflow.experiment.ExperimentManger}", "(did you mean ExperimentManager"),
            ("{class: qlib_ext.workflow.recorder.Recorder}", "`qlib_init.exp_manager.class` must be a ExpManager"),
            ("{class: MANAGER, kwargs: 3}", "`qlib_init.exp_manager.kwargs` must be a mapping, found 3"),
            ("{class: MANAGER, kwargs: {uri: 5}}", "the tracking URI must name a database or a server"),
            ("{class: MANAGER, kwargs: {ury: x}}", "found 'ury' (did you mean uri?)"),
            ("{class: MANAGER, kwargs: {default_exp_name: 5}}", "`qlib_init.exp_manager.kwargs.default_exp_name` must be"),
        ],
    )  # fmt: skip
    def test_a_wrong_manager_is_one_line(
        self, manager: str, message: str, said: Callable[[str], tuple[int, str]]
    ) -> None:
        manager = manager.replace("MANAGER", "qlib_ext.workflow.experiment.ExperimentManager")
        status, shown = said(re.sub(r"  exp_manager:\n(    .*\n)+", f"  exp_manager: {manager}\n", TEXT))
        assert status == 2
        assert message in shown
        assert "\n" not in shown

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('experiment_name: "a\\0b"', "it has the character U+0000, which no name and no path may have"),
            ('qlib_init: {provider_uri: "\\ud800"}', "it has the character U+D800"),
            ("a\0b: 1", "is no YAML"),
            ("qlib_init: &a {x: *a}", "it holds itself, by the alias `*a`"),
            ("task: [" + "[" * 200, "it is nested deeper than 64 levels"),
        ],
    )
    def test_what_no_workflow_may_hold(
        self, text: str, message: str, said: Callable[[str], tuple[int, str]]
    ) -> None:
        status, shown = said(text)
        assert status == 2
        assert message in shown
        assert "\n" not in shown

    def test_qlibs_own_manager_is_refused(self, said: Callable[[str], tuple[int, str]]) -> None:
        """Without another it keeps runs in files."""
        status, shown = said(re.sub(r"  exp_manager:\n(    .*\n)+", "", TEXT))
        assert status == 2
        assert shown.startswith("error: `qlib_init.exp_manager` must be {class: qlib_ext.workflow")
