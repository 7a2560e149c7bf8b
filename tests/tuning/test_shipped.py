"""Run with `pytest tests/tuning/test_shipped.py`: every study that comes with dirtune, against the data sets it is for."""

from __future__ import annotations

from functools import cache

import pytest

import dirtune.pipelines.agedb
import dirtune.pipelines.imdb_wiki
import dirtune.pipelines.nyud2
import dirtune.pipelines.operator
import dirtune.pipelines.sts_b
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.nested import get_leaf
from dirtune.pipelines.uci import TABLES
from dirtune.presets import read_methods
from dirtune.study.files import list_shipped_studies
from dirtune.study.resolve import ResolvedStudy, load_study
from dirtune.tuning.plan.checks import check_study, count_parameters, get_data_set, resolve_from_data

DATA_SETS = ("agedb", "digits", "imdb_wiki", "nyud2", "sts_b")
FACE = {"image": InputSpec(kind="image", shape=(3, 224, 224), encoding="jpeg")}
TOKENS = InputSpec(kind="tokens", shape=(40,), vocabulary=17011)
FEATURES = InputSpec(kind="vector", shape=(384,))
CELLS = {"features": InputSpec(kind="vector", shape=(8,))}
RINGS = LabelSpec(name="rings", unit="rings", low=1.0, high=29.0, bin_width=1.0, num_bins=29)
PAIR = {"first": TOKENS, "second": TOKENS, "first_features": FEATURES, "second_features": FEATURES}


@cache
def load_shipped(name: str) -> ResolvedStudy:
    """Resolve a study once: the larger ones take a second."""
    return load_study(name)


@cache
def manifest_of(data: str) -> Manifest:
    """The set's inputs, label and shot rules as its pipeline writes them, without rows."""
    rooms = dirtune.pipelines.nyud2.Options()
    inputs, label, rules = {
        "agedb": (FACE, dirtune.pipelines.agedb.LABEL, {"counts": ShotRule()}),
        "imdb_wiki": (FACE, dirtune.pipelines.imdb_wiki.LABEL, {"counts": ShotRule()}),
        "sts_b": (PAIR, dirtune.pipelines.sts_b.LABEL, dirtune.pipelines.sts_b.SHOT_RULES),
        "digits": (
            {"image": InputSpec(kind="image", shape=(1, 24, 24))},
            LabelSpec(name="angle", unit="degrees", low=0.0, high=120.0, bin_width=1.0, num_bins=120),
            {"counts": ShotRule()},
        ),
        "nyud2": (rooms.inputs, rooms.label, {"official": dirtune.pipelines.nyud2.OFFICIAL}),
        "operator": (
            {"function": InputSpec(kind="vector", shape=(101,))},
            dirtune.pipelines.operator.LABEL,
            {"counts": ShotRule()},
        ),
        **{f"uci_{table}": (CELLS, RINGS, {"classes": ShotRule()}) for table in TABLES},
    }[data]
    # As many as in STS-B-DIR, so that a recipe that drops the last batch has others.
    split = SplitInfo(files=("part_0.parquet",), rows=5249, bin_counts=(3,) * label.num_bins)
    return Manifest(
        name=data,
        inputs=inputs,
        label=label,
        shot_rules=rules,
        default_shot_rule=next(iter(rules)),
        splits=dict.fromkeys(("train", "val", "test"), split),
        content_hash="c" * 64,
        split_fingerprint="s" * 64,
    )


@pytest.mark.parametrize("name", list_shipped_studies())
def test_every_shipped_study_fits_its_data_set(name: str) -> None:
    study = load_shipped(name)
    manifest = manifest_of(get_data_set(study))
    study = resolve_from_data(study, manifest)
    check_study(study, manifest)
    assert study.name == name
    assert study.reference in {arm.name for arm in study.arms}
    assert all(parameters > 0 for parameters in count_parameters(study, manifest).values())


@pytest.mark.parametrize("name", list_shipped_studies())
def test_a_study_of_large_networks_asks_for_a_gpu(name: str) -> None:
    study = load_shipped(name)
    large = {"resnet18", "resnet50", "depth_resnet"}
    encoders = {get_leaf(arm.config.to_plain(), "model.encoder.name") for arm in study.arms}
    assert not encoders & large or study.resources.gpus > 0


def test_every_question_has_a_variant_on_digits() -> None:
    variants = [study for study in list_shipped_studies().values() if study.variant]
    questions = {study.path.stem for study in variants}
    assert questions == {study.path.stem for study in variants if study.variant == "digits"}
    assert {
        "conr_omega",
        "conr_weights",
        "accon_gamma",
        "accon_dimension",
        "accon_projection",
        "two_stage",
        "natural",
        "dir",
        "limited_data",
        "newest",
    } == questions


def test_the_arms_of_the_dir_comparison_are_its_rows() -> None:
    arms = {arm.name: arm.config for arm in load_shipped("agedb_dir").arms}
    terms = ["supcon", "adasupcon", "ranksim", "conr", "accon", "accon+conr"]
    for kind in ("vanilla", "focal_r+lds", "sqrt_inverse+lds"):
        for term in terms:
            active = arms[f"{kind}+{term}"].terms.get_active()
            assert sorted(active) == sorted(term.split("+"))
    for name, config in arms.items():
        assert config.reweighting.scheme == ("sqrt_inverse" if "lds" in name or "sqrt" in name else "none")
        assert (config.reweighting.lds is not None) == ("lds" in name)
        assert config.loss.name == ("focal_l1" if "focal_r" in name else "l1")
    assert len(arms) == 23


def test_the_tuned_study_gives_every_arm_the_same_search_and_fresh_seeds() -> None:
    study = load_shipped("sts_b_tuned")
    for arm in study.arms:
        assert {"recipe.learning_rate", "model.encoder.dropout"} <= arm.space.keys()
        # A method's own settings are tuned with them.
        assert len(arm.space) > 2 or arm.name in {"vanilla", "projection"}
    assert study.search.confirm
    assert len(study.seeds) == 5
    assert study.search.tuning_seed not in study.seeds


def test_a_variant_has_the_settings_published_on_its_data_set() -> None:
    for data in ("agedb", "sts_b", "digits"):
        arms = {arm.name: arm.config for arm in load_shipped(f"{data}_accon_gamma").arms}
        published = read_methods()["accon"].get_settings(data)
        assert published is not None
        settings = published.set["terms"]["accon"]
        accon = arms["accon"].terms.accon
        assert {key: getattr(accon, key) for key in settings} == settings
        assert arms["accon gamma=0.0"].terms.accon.gamma == 0
        assert arms["vanilla"].data.name == data


@pytest.mark.parametrize("variant", ["digits", "sts_b", "agedb", "imdb_wiki", "uci_concrete", "operator"])
def test_the_newest_methods_have_equal_budgets_and_fresh_seeds(variant: str) -> None:
    study = load_shipped(f"{variant}_newest")
    assert all("recipe.learning_rate" in arm.space for arm in study.arms)
    assert study.search.confirm
    assert study.search.tuning_seed not in study.seeds
