"""`pytest tests/losses/test_temperature.py`: learned temperatures, against loops and against what they shall settle at."""

import math

import pytest
import torch
from pydantic import ValidationError

from dirtune.batch import TrainingLabels
from dirtune.losses import TERMS, Fittable
from dirtune.losses.supcon import SupCon
from dirtune.losses.temperature import (
    BOUNDS,
    IndividualTemperatures,
    LearnableTemperature,
    TemperedTerm,
    compute_robust_sums,
    expand_temperatures,
)
from dirtune.manifest import LabelSpec

TEMPERED = sorted(name for name, term in TERMS.items() if issubclass(term, TemperedTerm))
every_tempered_term = pytest.mark.parametrize("name", TEMPERED)


def _training_labels(samples=8):
    spec = LabelSpec(name="age", unit="years", low=0, high=10, bin_width=1, num_bins=10)
    labels = torch.arange(samples).double() % 10
    return TrainingLabels(labels=labels, label_bins=labels.long(), spec=spec)


def _fitted(term, samples=8):
    module = term.fit(_training_labels(samples))
    assert isinstance(term, Fittable)
    return module


def _cosines(inputs):
    z = inputs.representations.detach()
    return (z @ z.T).tolist()


def test_a_fixed_temperature_needs_no_state():
    assert SupCon().fit(_training_labels()) is None


@every_tempered_term
def test_a_learnable_temperature_starts_as_the_fixed_one_and_gets_a_gradient(name, term_inputs):
    inputs, term = term_inputs(), TERMS[name](tau=0.2, temperature="learnable")
    module = _fitted(term)
    assert isinstance(module, LearnableTemperature)
    loss = module(inputs)
    loss.backward()
    torch.testing.assert_close(loss, TERMS[name](tau=0.2)(inputs), rtol=1e-6, atol=0)
    assert module.log_tau.grad.isfinite()
    assert module.log_tau.grad != 0


@every_tempered_term
@pytest.mark.parametrize("temperature", ["learnable", "individual"])
def test_the_gradient_of_the_temperature_is_its_slope(name, temperature, term_inputs):
    inputs = term_inputs(samples=5, dim=3)
    module = _fitted(TERMS[name](tau=0.4, temperature=temperature), samples=5).double()
    (parameter,) = module.parameters()

    def loss(values):
        return torch.func.functional_call(module, {next(iter(module.state_dict())): values}, inputs)

    with torch.no_grad():
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(loss, (parameter.detach().clone().requires_grad_(),))


@every_tempered_term
def test_blocks_change_neither_the_loss_nor_the_gradient_of_individual_temperatures(name, term_inputs, monkeypatch):
    inputs, module = term_inputs(), _fitted(TERMS[name](tau=0.3, temperature="individual"))
    results = []
    for entries in (1 << 20, 40):
        monkeypatch.setattr("dirtune.losses.blocks.BLOCK_ENTRIES", entries)
        loss = module(inputs)
        results.append((loss, *torch.autograd.grad(loss, [module.log_taus, inputs.representations])))
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-7)


def test_individual_temperatures_equal_the_loops(term_inputs):
    inputs = term_inputs(views=3)
    term = SupCon(tau=0.5, temperature="individual", rho=0.2, variant="paper")
    module = _fitted(term).double()
    with torch.no_grad():
        module.log_taus += torch.linspace(-1, 1, 8, dtype=torch.float64)
    taus = module.log_taus.exp().tolist()
    bins, samples, c = inputs.label_bins.tolist(), inputs.samples.tolist(), _cosines(inputs)
    rows, losses = range(24), []
    for i in rows:
        tau = taus[samples[i]]
        others = [k for k in rows if k != i]
        positives = [j for j in others if bins[j] == bins[i]]
        robust = [
            tau * math.log(sum(math.exp((c[i][k] - c[i][j]) / tau) for k in others) / len(others)) + tau * term.rho
            for j in positives
        ]
        losses.append(sum(robust) / len(robust))
    assert module(inputs).item() == pytest.approx(sum(losses) / len(losses) / term.tau, rel=1e-9)


def test_an_individual_temperature_rests_where_its_softmax_diverges_by_rho(term_inputs):
    # One sample: its temperature is that of all rows
    inputs = term_inputs(samples=1, views=12, dim=3)
    module = _fitted(SupCon(tau=0.5, temperature="individual", rho=0.3), samples=1).double()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        module(inputs).backward()
        optimizer.step()
    tau, divergences = module.log_taus.exp().item(), []
    for i, row in enumerate(_cosines(inputs)):
        weights = [math.exp(s / tau) for j, s in enumerate(row) if j != i]
        shares = [weight / sum(weights) for weight in weights]
        divergences.append(sum(p * math.log(11 * p) for p in shares))
    assert sum(divergences) / 12 == pytest.approx(0.3, rel=1e-3)
    assert BOUNDS[0] < tau < BOUNDS[1]


def test_only_the_samples_of_the_batch_move(term_inputs):
    inputs, module = term_inputs(), _fitted(SupCon(temperature="individual"), samples=20)
    assert isinstance(module, IndividualTemperatures)
    module(inputs).backward()
    moved = module.log_taus.grad != 0
    assert moved[:8].all()
    assert not moved[8:].any()


def test_an_anchor_without_positives_leaves_its_temperature_alone(term_inputs):
    inputs = term_inputs(labels=[0, 0, 1], views=1)
    module = _fitted(SupCon(temperature="individual"), samples=3)
    module(inputs).backward()
    assert module.log_taus.grad[:2].abs().min() > 0
    assert module.log_taus.grad[2] == 0


@every_tempered_term
@pytest.mark.parametrize("temperature", ["learnable", "individual"])
def test_one_row_is_finite(name, temperature, term_inputs):
    module = _fitted(TERMS[name](temperature=temperature), samples=1)
    loss = module(term_inputs(samples=1, views=1, dtype=torch.float32))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize(("beyond", "bound"), [(-50.0, BOUNDS[0]), (50.0, BOUNDS[1])])
def test_a_temperature_beyond_its_bounds_is_set_back_and_can_return(beyond, bound, term_inputs):
    module, inputs = _fitted(SupCon(temperature="learnable")), term_inputs()
    with torch.no_grad():
        module.log_tau.fill_(beyond)
    loss = module(inputs)
    loss.backward()
    assert module.log_tau.exp().item() == pytest.approx(bound)
    torch.testing.assert_close(loss, SupCon(tau=bound)(inputs), rtol=1e-5, atol=0)
    assert module.log_tau.grad != 0


@pytest.mark.parametrize("tau", [0.009, 11.0])
@pytest.mark.parametrize("temperature", ["learnable", "individual"])
def test_a_learned_temperature_starts_within_its_bounds(tau, temperature):
    with pytest.raises(ValidationError, match=r"tau must be within 0.01 and 10.0"):
        SupCon(tau=tau, temperature=temperature)
    assert SupCon(tau=tau).tau == tau


@pytest.mark.parametrize("temperature", ["learnable", "individual"])
def test_the_module_has_a_learning_rate_and_saves_its_temperatures(temperature, term_inputs):
    term = SupCon(temperature=temperature, tau_learning_rate=0.02)
    module, restored = _fitted(term), _fitted(term)
    (parameter,) = module.parameters()
    assert module.learning_rate == 0.02
    with torch.no_grad():
        parameter.sub_(0.5)
    restored.load_state_dict(module.state_dict())
    assert restored(term_inputs()) == module(term_inputs())


def test_temperatures_are_spread_over_the_rows():
    rows = torch.zeros(3, 2, dtype=torch.float64)
    assert expand_temperatures(0.5, rows).tolist() == [0.5] * 3
    assert expand_temperatures(torch.tensor(0.5), rows).tolist() == [0.5] * 3
    own = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    taus = expand_temperatures(own, rows)
    taus.sum().backward()
    assert taus.dtype == torch.float64
    assert own.grad.tolist() == [1, 1, 1]


def test_without_rho_the_sums_stay_as_they_are():
    sums, counts, taus = torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.0]), torch.ones(2)
    assert compute_robust_sums(sums, counts, taus, num_others=0, rho=None) is sums
    per_anchor = torch.tensor([4.0, 0.0])
    robust = compute_robust_sums(sums, counts, 0.5 * taus, num_others=per_anchor, rho=0.1)
    assert robust.tolist() == pytest.approx([0.5 * (3 + 2 * (0.1 - math.log(4))), 0.0])
