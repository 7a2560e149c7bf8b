"""Figure `importance`: which settings of a searched arm decide its objective (`dirtune.results.statistics.importance`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.results.analysis.searches import Search, searched_arm
from dirtune.results.analysis.selection import as_loss
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import COLORS, COLUMN, ROW, finish, lighter, new_figure
from dirtune.results.statistics.importance import importance, target_share

FEW_TRIALS = 30
NAMES = {"ped_anova": "PED-ANOVA", "fanova": "fANOVA"}


@dataclass(frozen=True, kw_only=True)
class Importances:
    """The settings of one arm, the most important first."""

    settings: tuple[str, ...]
    shares: tuple[float, ...]
    """Of one."""
    label: str
    caption: str


def importance_data(request: PlotRequest) -> Importances:
    """Importances from the complete trials of one searched arm; `arms` names it, by default the one with the most settings.

    Raises:
        InputError: nothing was searched, the arm or method is unknown, or there are too few trials.
    """
    search = searched_arm(request.root, request.study, request.one_arm())
    used = [trial for trial in search.trials if trial.status == "complete" and not math.isnan(trial.objective)]
    shares = importance(
        [trial.settings for trial in used],
        [as_loss(trial.objective, search.info.metric) for trial in used],
        search.space,
        method=request.method,
    )
    return Importances(
        settings=tuple(shares),
        shares=tuple(shares.values()),
        label=f"importance ({NAMES[request.method]})",
        caption=_caption(search, len(used), request.method),
    )


def draw_importance(data: Importances) -> Figure:
    """A bar per setting with its share."""
    figure = new_figure(COLUMN, 0.5 + 1.3 * ROW * len(data.settings))
    axes = figure.add_subplot()
    rows = range(len(data.settings))
    bars = axes.barh(rows, data.shares, 0.7, color=lighter(COLORS[0]), edgecolor=COLORS[0], linewidth=0.8)
    axes.bar_label(bars, [f"{share:.0%}" for share in data.shares], padding=2)
    axes.set_yticks(rows, data.settings)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.12 * max(*data.shares, 0.1))
    axes.set_xlabel(data.label)
    finish(figure, data.caption)
    return figure


def _caption(search: Search, used: int, method: str) -> str:
    target = f" (best {target_share(used):.0%} against all)" if method == "ped_anova" else ""
    left_out = len(search.trials) - used
    return (
        f"{search.study}, arm {search.arm}: share of every searched setting in what decides the validation objective "
        f"({search.info.metric}, {search.info.region}), by {NAMES[method]}{target} over {used} complete trials."
        + (" So few trials show mostly chance." if used < FEW_TRIALS else "")
        + (f" Left out: {left_out} pruned or failed." if left_out else "")
        + (f" Other searched arms: {', '.join(search.others)}." if search.others else "")
    )
