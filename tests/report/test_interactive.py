from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.interactive import fragment
from qlib_ext.report.plotly_charts import description
from tests.report.drawn import TOLD, lines


class TestFragment:
    def test_the_legend_stands_there_before_anything_is_drawn(self) -> None:
        made = fragment("c", lines(hidden=["b"], levels={"one": 1.0}, log_choice=True))
        pressed = re.findall(
            r'<button type="button" aria-pressed="(\w+)" [^>]*><span [^>]*></span>([^<]*)<', made
        )
        assert pressed == [("true", "a"), ("false", "b")]
        assert '<span class="swatch dashed" style="border-color:#22282f"></span>one, 1</span>' in made
        assert made.count('class="log"') == 1

    def test_one_series_alone_needs_no_legend(self) -> None:
        chart = Lines(series={"a": pd.Series([1.0])}, **TOLD)
        assert 'class="tools"' not in fragment("c", chart)

    def test_names_cannot_leave_their_place(self) -> None:
        evil = "</script><script>alert(1)</script>\"'&<b>"
        chart = Lines(series={evil: pd.Series([1.0])}, alt=evil, caption=evil, ylabel=evil, marks={evil: 0})
        made = fragment("c", chart)
        assert made.count("<script") == made.count("</script>") == 1
        (described,) = re.findall(r'<script type="application/json">(.*?)</script>', made)
        read = json.loads(described)
        assert read["legend"][0]["name"] == evil
        assert (
            read["traces"][0]["name"]
            == "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;\"'&amp;&lt;b&gt;"
        )
        assert 'aria-label="&lt;/script&gt;' in made

    @pytest.mark.parametrize("name", ["", "a b", 'a"b', "a/b", "<a>"])
    def test_a_name_is_a_file_name(self, name: str) -> None:
        with pytest.raises(UserError, match="a chart's name must be of letters, digits"):
            fragment(name, lines())

    def test_an_unknown_kind(self) -> None:
        with pytest.raises(UserError, match="a chart must be one of Lines, Bars, Heatmap, Histogram, Points"):
            description(Chart(**TOLD))

    def test_a_thousand_days_take_little_room(self) -> None:
        days = pd.bdate_range("2017-01-02", periods=1000)
        draw = np.random.default_rng(0)
        chart = Lines(series={f"s{k}": pd.Series(draw.normal(size=1000), days) for k in range(4)}, **TOLD)
        assert len(fragment("c", chart)) < 30_000  # 4 lines of 5.3 kB each, and the days once
