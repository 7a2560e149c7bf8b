"""Run with `pytest tests/metrics/test_intervals.py`: metrics of predicted deviations against SciPy, integrals, UVOTE's code."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from dirtune.metrics import intervals
from tests.golden.vectors import list_newest, read_newest

DISTRIBUTIONS = {
    "normal": lambda mean, deviation: stats.norm(mean, deviation),
    "laplace": lambda mean, deviation: stats.laplace(mean, deviation / math.sqrt(2)),
}
LABELS = np.array([1.0, 5.0, 2.0, 9.0])
PREDICTIONS = np.array([1.5, 2.0, 2.0, 30.0])
DEVIATIONS = np.array([0.5, 2.0, 1.0, 4.0])
REGIONS = np.array(["many", "many", "few", "few"])


def _by_name(distribution):
    rows = intervals.compute_deviation_metrics(LABELS, PREDICTIONS, DEVIATIONS, REGIONS, distribution=distribution)
    return {(row["region"], row["metric"]): (row["value"], row["n"]) for row in rows}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_metrics_are_those_of_the_distribution(name):
    found, exact = _by_name(name), DISTRIBUTIONS[name](PREDICTIONS, DEVIATIONS)
    assert found["all", "nll"][0] == pytest.approx(-exact.logpdf(LABELS).mean(), rel=1e-10)
    low, high = exact.interval(0.9)
    assert found["all", "width_90"][0] == pytest.approx((high - low).mean(), rel=1e-10)
    assert found["all", "coverage_90"][0] == np.mean((low <= LABELS) & (high >= LABELS)) == 0.75
    assert found["few", "coverage_90"] == (0.5, 2)
    scores = []
    for label, mean, deviation in zip(LABELS, PREDICTIONS, DEVIATIONS, strict=True):
        each = DISTRIBUTIONS[name](mean, deviation)
        below = integrate.quad(lambda x, each=each: each.cdf(x) ** 2, mean - 60, label, points=[mean], limit=200)[0]
        above = integrate.quad(lambda x, each=each: each.sf(x) ** 2, label, mean + 60, points=[mean], limit=200)[0]
        scores.append(below + above)
    assert found["all", "crps"][0] == pytest.approx(np.mean(scores), rel=1e-5)
    assert math.isnan(found["medium", "nll"][0])
    assert found["medium", "nll"][1] == 0


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_predictions_without_spread_are_scored_by_their_absolute_error(name):
    # One of them is exact.
    rows = intervals.compute_deviation_metrics(LABELS, PREDICTIONS, np.zeros(4), REGIONS, distribution=name)
    found = {row["metric"]: row["value"] for row in rows if row["region"] == "all"}
    assert found["crps"] == found["uce"] == pytest.approx(np.abs(LABELS - PREDICTIONS).mean())
    assert found["nll"] > 1e300
    assert found["coverage_90"] == 0.25
    assert found["width_90"] == pytest.approx(0.0, abs=1e-300)


@pytest.mark.parametrize("name", list_newest("uvote_vote"))
def test_the_calibration_error_equals_the_official_code(name):
    vector = read_newest(name)
    errors = np.abs((vector["out_mu_minvar"] - vector["targets"]).numpy())
    found = intervals.uce(errors, vector["out_std_minvar"].numpy(), "laplace")
    assert found == pytest.approx(float(vector["out_uce_minvar"]), rel=1e-9)
