"""The contracts that dirtune has with its parts, checked for those of this package."""

from dirtune_spread import Spread, WideMLP, tail_error

from dirtune.manifest import InputSpec
from dirtune.testing import check_encoder, check_metric, check_term


def test_the_term_the_encoder_and_the_metric_keep_their_contracts():
    check_term(Spread)
    check_encoder(WideMLP, {"features": InputSpec(kind="vector", shape=(6,))})
    check_metric(tail_error)
