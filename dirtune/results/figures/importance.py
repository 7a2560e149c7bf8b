"""Figure `importance`: importance of the settings of a searched arm (`dirtune.results.statistics.importance`)."""

import math
from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.results.analysis import searches, selection
from dirtune.results.figures import _request, _style
from dirtune.results.statistics.importance import compute_importance, compute_target_share

FEW_TRIALS = 30
"""Complete trials below which the caption warns of chance."""
NAMES = {"ped_anova": "PED-ANOVA", "fanova": "fANOVA"}


@dataclass(frozen=True, kw_only=True)
class Importances:
    """Importances of the settings of one arm, the largest first."""

    settings: tuple[str, ...]
    shares: tuple[float, ...]
    """Shares, which add up to 1."""
    label: str
    caption: str


def build_importance(request: _request.PlotRequest) -> Importances:
    """Compute importances from the complete trials of one searched arm.

    Args:
        request: `arms` has the arm, by default the one with the most settings.

    Raises:
        InputError: no arm was searched, the arm or method is unknown, or there are too few trials.
    """
    search = searches.read_search_history(request.root, request.study, request.get_arm())
    used = [trial for trial in search.trials if trial.status == "complete" and not math.isnan(trial.objective)]
    shares = compute_importance(
        [trial.settings for trial in used],
        [selection.to_loss(trial.objective, search.info.metric) for trial in used],
        search.space,
        method=request.method,
    )
    return Importances(
        settings=tuple(shares),
        shares=tuple(shares.values()),
        label=f"importance ({NAMES[request.method]})",
        caption=_format_caption(search, len(used), request.method),
    )


def draw_importance(data: Importances) -> Figure:
    """Draw a bar per setting with its share."""
    figure = _style.make_figure(_style.COLUMN, 0.5 + 1.3 * _style.ROW * len(data.settings))
    axes = figure.add_subplot()
    rows = range(len(data.settings))
    bars = axes.barh(
        rows, data.shares, 0.7, color=_style.mix_with_white(_style.COLORS[0]), edgecolor=_style.COLORS[0], linewidth=0.8
    )
    axes.bar_label(bars, [f"{share:.0%}" for share in data.shares], padding=2)
    axes.set_yticks(rows, data.settings)
    # Rows count from the bottom, and the largest belongs to the top.
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    # Room for the percentages at the ends of the bars.
    axes.set_xlim(0, 1.12 * max(*data.shares, 0.1))
    axes.set_xlabel(data.label)
    _style.finish_figure(figure, data.caption)
    return figure


def _format_caption(search: searches.SearchHistory, used: int, method: str) -> str:
    target = f" (best {compute_target_share(used):.0%} against all)" if method == "ped_anova" else ""
    left_out = len(search.trials) - used
    return (
        f"{search.study}, arm {search.arm}: importance of every searched setting for the validation objective "
        f"({search.info.metric}, {search.info.region}), by {NAMES[method]}{target} over {used} complete trials."
        + (" So few trials show mostly noise." if used < FEW_TRIALS else "")
        + (f" Left out: {left_out} pruned or failed." if left_out else "")
        + (f" Other searched arms: {', '.join(search.others)}." if search.others else "")
    )
