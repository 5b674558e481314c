"""The metrics that `jxai judge` compares methods by: a column each, at a cost that two cores can pay.

`case.f` is the network, a `Classifier`; a pixel's relevance is the sum over channels.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jxai import metrics
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0, InputSpace
from jxai.cli.explaining.methods import Classifier
from jxai.cli.judging.methods import Judged
from jxai.metrics.case import Case, parts
from jxai.metrics.neighbors import norm
from jxai.metrics.sanity import histogram_entropy, relative_rise
from jxai.metrics.shared import removal, robustness

_RADIUS = 0.02  # of moved copies, in 128 gray levels
_SHIFT = 1.0  # of all gray levels, in 128 of them, of input invariance
_ASIDE = ((0, 8),)  # pixels down and to the right, of continuity
_TOLERANCE = 0.5  # relative change of the score, of effective complexity


@dataclasses.dataclass(frozen=True)
class Costs:
    """How much each metric computes."""

    num_regions: int = 30
    """Windows of 15 x 15 that the perturbation curve replaces (AUPC)."""
    num_draws: int = 1
    """Draws of noise a window (the paper has 50)."""
    num_steps: int = 10
    """Steps of insertion, deletion and pixel flipping."""
    shares: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Shares of pixels that ROAD removes."""
    num_perturbations: int = 10
    """Of infidelity, a picture."""
    num_moves: int = 2
    """Moved copies of a picture, of both sensitivities, the Lipschitz estimate and the relative stabilities."""
    num_groups: int = 10
    """Groups of pixels of faithfulness estimate and monotonicity correlation, and superpixels of IROF."""
    num_subsets: int = 10
    """Random sets of pixels of faithfulness correlation, and of each of two sizes of sensitivity-n."""
    num_references: int = 2
    """Pictures that effective complexity puts a picture's relevant pixels into."""
    side: int = 56
    """Of the squares of selectivity, region perturbation and non-sensitivity, in pixels."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A column of the table.

    Attributes:
        label: in the table.
        about: what is measured, for the caption.
        measure: a metric of `jxai.metrics.evaluate`.
    """

    label: str
    about: str
    measure: Callable[[Case], Any]


class Subject(NamedTuple):
    """What metrics know beside a case.

    Attributes:
        methods: by name.
        randomized: the network with random parameters; None where no metric is measured.
        shifted: the network that undoes a shift of its inputs; None likewise.
        references: pictures of the data, (R, H, W, C), as network inputs; None likewise.
        represent: the network's maps that Grad-CAM weighs; None where none are known.
        space: the network's inputs: gray takes a removed pixel's place.
    """

    methods: Mapping[str, Judged]
    randomized: Any = None
    shifted: Any = None
    references: Any = None
    represent: Callable[[jax.Array], jax.Array] | None = None
    space: InputSpace = EFFICIENTNET_LITE0


def shifted(classifier: Classifier, space: InputSpace) -> Classifier:
    """The network whose inputs are brighter, and which undoes it.

    Args:
        classifier: the network.
        space: its inputs.

    Returns:
        Of pictures brighter by 128 gray levels it says what the network says of the pictures.
    """

    def undone(function: Callable[[Any, jax.Array], jax.Array]) -> Callable[[Any, jax.Array], jax.Array]:
        return lambda variables, x: function(variables, x - _SHIFT * space.gray_levels)

    maps = None if classifier.maps is None else undone(classifier.maps)
    return dataclasses.replace(classifier, apply=undone(classifier.apply), maps=maps)


def judging_metrics(costs: Costs, subject: Subject) -> Mapping[str, Metric]:
    """Every metric by its name in `jxai.metrics.DIRECTIONS`, in the order of the table.

    Args:
        costs: numbers of draws and the like.
        subject: whose methods are judged.

    Returns:
        Name to metric.
    """
    space = subject.space
    gray: dict[str, Any] = {"baseline": space.gray}

    def perturbation(c: Case) -> Any:
        regions = {"num_regions": costs.num_regions, "num_draws": costs.num_draws}
        curve = metrics.perturbation_curve(
            c.f, c.key, c.x, c.heatmap, c.target, low=space.low, high=space.high, **regions
        )
        return metrics.aupc(curve), curve

    def insertion(c: Case) -> Any:
        return metrics.curve_area(metrics.insertion(c.f, c.x, c.heatmap, c.target, num_steps=costs.num_steps))

    def removed(c: Case) -> dict[str, Any]:
        return removal(c.f, c.x, c.heatmap, c.target, num_steps=costs.num_steps, **gray)

    def grouped(c: Case) -> dict[str, Any]:
        return {"group_size": -(-c.heatmap[0].size // costs.num_groups)}

    def infidelity(c: Case) -> Any:
        # Where a pixel has one attribution, its channels share it: the factor is fitted anyway.
        each = jnp.broadcast_to(c.attributions, c.x.shape)
        options = {"num_samples": costs.num_perturbations, "scaled": True}
        return metrics.infidelity(c.f, c.key, c.x, each, c.target, **options)

    def sensitivity_n(c: Case) -> Any:
        sizes = [max(1, c.heatmap[0].size // part) for part in (100, 3)]
        options = {"sizes": sizes, "num_samples": costs.num_subsets, **gray}
        return metrics.sensitivity_n(c.f, c.key, c.x, c.heatmap, c.target, **options).mean(axis=1)

    def monotonicity_correlation(c: Case) -> Any:
        options = {"num_samples": 1, **grouped(c)}
        return metrics.monotonicity_correlation(c.f, c.key, c.x, c.heatmap, c.target, **options)

    def stable(c: Case) -> dict[str, Any]:
        moves = {"radius": _RADIUS * space.gray_levels, "num_samples": costs.num_moves}
        known = {"explained": c.attributions, "represent": subject.represent}
        found = robustness(c.f, c.explain, c.key, c.x, c.target, **moves, **known)
        return {"relative_representation_stability": None, **found}

    def continuity(c: Case) -> Any:
        options = {"shifts": _ASIDE, "explained": c.attributions, "baseline": space.gray}
        return metrics.continuity(c.explain, c.x, c.target, **options)

    def input_invariance(c: Case) -> Any:
        other = c.explain(c.x + _SHIFT * space.gray_levels, c.target, f=subject.shifted)
        change = norm(other - c.attributions)
        return jnp.where(change == 0, 0, change / norm(c.attributions))

    def effective_complexity(c: Case) -> Any:
        options = {"tolerance": _TOLERANCE, "num_steps": costs.num_steps, "num_samples": costs.num_references}
        found = metrics.effective_complexity(
            c.f, c.key, c.x, c.heatmap, c.target, subject.references, **options
        )
        return found / c.heatmap[0].size

    def non_sensitivity(c: Case) -> Any:
        # A pixel each would be 50,000 evaluations; a square's color is what is moved.
        squares = metrics.grid_segments(*c.heatmap.shape[1:], patch_size=costs.side)
        num_squares = int(squares.max()) + 1
        whole = jnp.abs(c.heatmap).sum(axis=(1, 2), keepdims=True)
        share = c.heatmap / jnp.where(whole == 0, 1, whole)
        sums = jax.vmap(lambda one: jnp.zeros(num_squares).at[squares].add(one))(share)

        def of_one(given: tuple[jax.Array, ...]) -> jax.Array:
            place, x, sums, target = given
            none, key = jnp.zeros((1, num_squares, x.shape[-1])), jax.random.fold_in(c.key, place)
            moved = lambda colors: c.f(x + colors[:, squares])  # noqa: E731
            noise = space.gray_levels
            return metrics.non_sensitivity(moved, key, none, sums[None], target[None], noise_scale=noise)[0]

        counts = jax.lax.map(of_one, (jnp.arange(len(c.x)), c.x, sums, c.target))
        return counts / num_squares

    def region_perturbation(c: Case) -> Any:
        noise = metrics.noise_baseline(low=space.low, high=space.high)
        options = {"patch_size": costs.side, "baseline": noise, "key": c.key}
        return metrics.region_perturbation(c.f, c.x, c.heatmap, c.target, **options).mean(axis=1)

    def residual(c: Case) -> Any:
        one = subject.methods[c.explain.name]
        if not one.adds_up:
            return None
        baseline = None if one.baseline is None else one.baseline(c.explain.key, c.x)
        return metrics.completeness(c.f, c.x, c.attributions, c.target, baseline=baseline).residual

    def randomization(c: Case) -> dict[str, Any]:
        other = c.explain(c.x, c.target, f=subject.randomized).sum(axis=-1)
        before, after = (histogram_entropy(one, 100) for one in (c.heatmap, other))
        return {
            "model_randomization": metrics.rank_correlation(c.heatmap, other),
            "efficient_model_randomization": relative_rise(before, after),
        }

    def random_logit(c: Case) -> Any:
        classes = jax.eval_shape(c.f, c.x).shape[1]
        if classes < 2:
            return None
        step = jax.random.randint(c.key, c.target.shape, 1, classes)
        other = c.explain(c.x, (c.target + step) % classes).sum(axis=-1)
        return metrics.structural_similarity(c.heatmap, other)

    path = parts(removed, "deletion", "pixel_flipping", "monotonicity")
    random = parts(randomization, "model_randomization", "efficient_model_randomization")
    stability = parts(
        stable,
        "maximum_sensitivity",
        "average_sensitivity",
        "local_lipschitz_estimate",
        "relative_input_stability",
        "relative_output_stability",
        "relative_representation_stability",
    )
    draws = "draw" if costs.num_draws == 1 else "draws"
    copies = "copy" if costs.num_moves == 1 else "copies"
    return {
        "aupc": Metric(
            "AUPC",
            f"the score over {costs.num_regions} windows of 15 x 15 replaced by noise, {costs.num_draws} {draws} "
            "each (the paper: 30, 50)",
            perturbation,
        ),
        "autvc": Metric(
            "AUTVC",
            "total variation over the heatmap's pyramid",
            lambda c: metrics.autvc(metrics.multiscale_total_variation(c.heatmap)),
        ),
        "insertion": Metric(
            "insertion",
            f"probability while pixels enter a blurred picture, {costs.num_steps} steps",
            insertion,
        ),
        "deletion": Metric(
            "deletion",
            f"probability while pixels give way to gray, {costs.num_steps} steps",
            path["deletion"],
        ),
        "pixel_flipping": Metric(
            "pixel flipping",
            f"the score meanwhile, in logits, {costs.num_steps} steps",
            path["pixel_flipping"],
        ),
        "road": Metric(
            "ROAD",
            f"mean probability once {', '.join(f'{share:.0%}' for share in costs.shares)} of the pixels, the most "
            "relevant first, are imputed",
            lambda c: metrics.road(c.f, c.key, c.x, c.heatmap, c.target, shares=costs.shares).mean(axis=1),
        ),
        "selectivity": Metric(
            "selectivity",
            f"the score, in logits, while squares of {costs.side} pixels give way to gray",
            lambda c: metrics.curve_area(
                metrics.selectivity(c.f, c.x, c.heatmap, c.target, patch_size=costs.side, **gray)
            ),
        ),
        "region_perturbation": Metric(
            "region perturbation",
            "its mean drop while noise replaces them (AOPC)",
            region_perturbation,
        ),
        "irof": Metric(
            "IROF",
            f"area over the probability's share while {costs.num_groups} superpixels give way to the mean color",
            lambda c: metrics.irof(c.f, c.x, c.heatmap, c.target, num_segments=costs.num_groups),
        ),
        "faithfulness_correlation": Metric(
            "faithfulness correlation",
            f"of the sums over {costs.num_subsets} random tenths of the pixels with the drops without them",
            lambda c: metrics.faithfulness_correlation(
                c.f, c.key, c.x, c.heatmap, c.target, num_samples=costs.num_subsets, **gray
            ),
        ),
        "faithfulness_estimate": Metric(
            "faithfulness estimate",
            f"the same of {costs.num_groups} groups of pixels by relevance",
            lambda c: metrics.faithfulness_estimate(c.f, c.x, c.heatmap, c.target, **grouped(c), **gray),
        ),
        "monotonicity": Metric(
            "monotonicity",
            "share of pictures whose score never falls on the way of pixel flipping back",
            path["monotonicity"],
        ),
        "monotonicity_correlation": Metric(
            "monotonicity correlation",
            "Spearman's, of these groups' relevance with the score's squared change under noise, 1 draw",
            monotonicity_correlation,
        ),
        "sensitivity_n": Metric(
            "sensitivity-n",
            f"correlation as above, {costs.num_subsets} sets of 1% and of a third of the pixels, the mean",
            sensitivity_n,
        ),
        "infidelity": Metric(
            "infidelity",
            f"after the best scaling of each heatmap, {costs.num_perturbations} perturbations",
            infidelity,
        ),
        "maximum_sensitivity": Metric(
            "max. sensitivity",
            f"within ±{_RADIUS * 128:.1f} gray levels of 255, {costs.num_moves} moved {copies}, the method's "
            "noise held",
            stability["maximum_sensitivity"],
        ),
        "average_sensitivity": Metric(
            "avg. sensitivity",
            "the mean over these copies, where max. has the largest",
            stability["average_sensitivity"],
        ),
        "local_lipschitz_estimate": Metric(
            "Lipschitz",
            "the largest slope to them",
            stability["local_lipschitz_estimate"],
        ),
        "relative_input_stability": Metric(
            "RIS",
            "the largest relative change to those of the same predicted class, over the input's",
            stability["relative_input_stability"],
        ),
        "relative_output_stability": Metric(
            "ROS",
            "over the scores' change",
            stability["relative_output_stability"],
        ),
        "relative_representation_stability": Metric(
            "RRS",
            "over that of the maps that Grad-CAM weighs",
            stability["relative_representation_stability"],
        ),
        "continuity": Metric(
            "continuity",
            "the change (L1) once the picture moves 8 pixels to the right, over the picture's (L2)",
            continuity,
        ),
        "sparseness": Metric("sparseness", "Gini index", lambda c: metrics.sparseness(c.heatmap)),
        "complexity": Metric("complexity", "entropy in nats", lambda c: metrics.complexity(c.heatmap)),
        "effective_complexity": Metric(
            "effective complexity",
            f"share of the pixels, of {costs.num_steps} shares, that in {costs.num_references} other pictures leave "
            f"the score within {_TOLERANCE:.0%}",
            effective_complexity,
        ),
        "non_sensitivity": Metric(
            "non-sensitivity",
            f"share of the squares of {costs.side} pixels that either have no relevance or, in another color, do not "
            "matter",
            non_sensitivity,
        ),
        "input_invariance": Metric(
            "input invariance",
            "relative change if all pixels are 128 gray levels brighter and the network undoes it",
            input_invariance,
        ),
        "completeness": Metric(
            "residual",
            "|sum − change| / |change| of the score from the baseline, of relevance |sum − score| / |score|",
            residual,
        ),
        "model_randomization": Metric(
            "randomization",
            "rank correlation with the heatmap of the network once all its parameters are shuffled",
            random["model_randomization"],
        ),
        "efficient_model_randomization": Metric(
            "eMPRT",
            "relative rise of the histogram's entropy then",
            random["efficient_model_randomization"],
        ),
        "random_logit": Metric(
            "random logit",
            "structural similarity with the heatmap of another class",
            random_logit,
        ),
    }
