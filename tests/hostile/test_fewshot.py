"""`jxai.fewshot` under hostile input; heads and losses make NaN of NaN, see `docs/hostile.md`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fewshot_baselines import BASELINES
from fewshot_systems import (
    ENCODER,
    EPISODE,
    GUIDANCE,
    HEAD,
    HEADS,
    IMAGES,
    MAYBE,
    NO_EPISODE,
    NO_LABELS,
    QUERIES,
    SIZE,
    SYSTEM,
    TASK,
    TRANSDUCTION,
    TRANSFORMATION,
    WAY,
    WAYS,
    Encoder,
    episode,
    features,
    maps,
    of_features,
    system,
    variables,
    with_episode,
    with_head,
)
from hypothesis import strategies as st
from relevance_cases import RELEVANCE_CASES
from strategies import (
    EFFORTS,
    Argument,
    Case,
    Spoilt,
    array,
    choice,
    count,
    key,
    number,
    one_of,
    search,
    unheard_of,
)

from jxai import fewshot
from jxai.fewshot.checks import check_labels

EXEMPT = {
    "Episode": "a structure, which the functions that take one look at",
    "Explanation": "a structure of results",
    "Head": "has no scores of its own: subclasses give them",
}


def scores_of(name):
    """The scores of a head that is made of the arguments, on features that fit it."""

    def call(support, support_labels, query, way, **fields):
        head = dataclasses.replace(HEADS[name], **fields)
        given = episode(support, support_labels, query, None, way)
        return head.init_with_output(jax.random.key(0), given)[0]

    return call


def head_case(name, **fields):
    return Case(
        scores_of(name),
        {**TASK, "way": WAYS, **fields},
        undefined="NaN of NaN",
        holds=lambda found, given: found.shape == (QUERIES, WAY) and bool(jnp.isfinite(found).all()),
    )


FINITE_LOSS = {
    "undefined": "NaN of NaN",
    "holds": lambda found, given: bool(jnp.isfinite(found[0])),
}


def loss_of(make):
    """Traced, for its gradient of a gradient takes long uncompiled: the loss that a function of a system makes."""

    def call(encoder, head, pair, **options):
        head, of_system = system(head, None)
        loss_fn = make(encoder, head, **options)
        one = episode(maps(4), np.repeat(np.arange(2), 2), maps(4, seed=1), np.repeat(np.arange(2), 2), way=2)
        rest = jax.random.key(1), jnp.zeros((), int)
        if not pair:
            return jax.eval_shape(loss_fn, of_system, one, *rest)[0].shape
        learned = {"bn0": {"scale": jnp.full(3, 0.3), "shift": jnp.full(3, 0.5)}}
        with_learned = {**of_system, "params": {**of_system["params"], "transformation": learned}}
        return jax.eval_shape(loss_fn, with_learned, (one, one), *rest)[0].shape

    return call


ROWS = np.array([[0, 1, 2, 3]])
CASES = {
    **RELEVANCE_CASES,
    **BASELINES,
    "AdaptedHead": head_case(
        "AdaptedHead", step_size=number(1.0, 0.1, wrong=(0.0, -1.0)), pool=one_of(True, False)
    ),
    "CrossAttentionHead": head_case(
        "CrossAttentionHead",
        hidden=count(2),
        temperature=number(0.025, 1.0, wrong=(0.0, -1.0)),
        scale=number(7.0, wrong=(0.0,)),
        num_classes=count(None, 3),
    ),
    "FEATHead": head_case(
        "FEATHead",
        temperature=number(64.0, 1.0, wrong=(0.0, -1.0)),
        contrast=number(None, 0.1, wrong=(0.0, -1.0)),
        contrast_temperature=number(32.0, wrong=(0.0,)),
        pool=one_of(True, False),
    ),
    "GraphHead": head_case(
        "GraphHead",
        features=count(3),
        growth=count(2),
        widths=one_of((2,), bad=[Spoilt(v, refused=True) for v in ((), (0,), (1.5,), None, 3)]),
        running_statistics=one_of(False, True),
    ),
    "Guidance": Case(
        lambda **given: fewshot.Guidance(**given).weights(HEADS["PrototypeHead"], 1),
        {
            "plain_weight": number(None, 1.0, 0.0, wrong=(-0.5,)),
            "guided_weight": number(None, 1.0, 0.0, wrong=(-0.5,)),
            "strength": number(1.0, 0.0, wrong=(-1.0,)),
            "through": one_of(None, True, False, bad=[Spoilt(v, refused=True) for v in (1, "yes", [])]),
        },
    ),
    "MatchingHead": head_case(
        "MatchingHead", temperature=number(0.01, 1.0, wrong=(0.0, -1.0)), pool=one_of(True, False)
    ),
    "PrototypeHead": head_case("PrototypeHead", pool=one_of(True, False)),
    "RelationHead": head_case(
        "RelationHead",
        features=count(2),
        hidden=count(2),
        padding=count(1, least=0),
        nonnegative=one_of(False, True),
    ),
    "Transduction": Case(
        lambda **given: repr(fewshot.Transduction(**given)),
        {
            "counts": one_of(
                (1,),
                (35, 70),
                bad=[Spoilt(v, refused=True) for v in ((), (0,), (1.5,), None, 3, "12", (np.nan,))],
            ),
            "restart": one_of(True, False),
            "confidence": choice("score", "probability"),
        },
    ),
    "Transformed": Case(
        lambda x, key, transformation, sharpness: fewshot.Transformed(
            Encoder(), key, transformation, sharpness
        ).apply(fewshot.part(variables("RelationHead"), "encoder"), x, train=True, mutable=["batch_stats"])[
            0
        ],
        {
            "x": one_of(maps(2)),
            "key": key(),
            "transformation": TRANSFORMATION,
            "sharpness": number(1.0, 100.0, wrong=(0.0, -1.0)),
        },
    ),
    "encode": Case(
        lambda encoder, variables, images, batch_size, head: fewshot.encode(
            encoder, system("RelationHead", variables)[1], images, batch_size=batch_size, head=head
        ),
        {
            "encoder": ENCODER,
            "variables": SYSTEM["variables"],
            "images": one_of(
                maps(3),
                bad=[*(Spoilt(v, refused=True) for v in (None, 3, maps(0))), Spoilt(maps(3) * np.nan)],
            ),
            "batch_size": count(1, 2, 200),
            "head": one_of(None, HEADS["PrototypeHead"]),
        },
        undefined="NaN of NaN",
        holds=lambda found, given: len(found) == 3 and bool(jnp.isfinite(found).all()),
    ),
    "episode_accuracies": Case(
        with_head(fewshot.episode_accuracies),
        {
            **SYSTEM,
            "features": Argument(
                lambda size: st.integers(0, 3).map(lambda seed: maps(8, seed=seed)), features(8).bad
            ),
            "support": one_of(
                ROWS,
                np.repeat(ROWS, 3, axis=0)[:1],
                bad=[
                    Spoilt(v, refused=True)
                    for v in (
                        ROWS[0],
                        ROWS - 1,
                        ROWS + 8,
                        ROWS[:, :3],
                        ROWS[:0],
                        ROWS[:, :0],
                        ROWS / 2,
                        None,
                        "text",
                        [[1, 2]],
                    )
                ],
            ),
            "query": one_of(
                ROWS + 4,
                bad=[
                    Spoilt(v, refused=True)
                    for v in (
                        ROWS[0],
                        ROWS + 8,
                        ROWS[:, :3],
                        ROWS[:0],
                        ROWS / 2,
                        None,
                        np.repeat(ROWS, 2, axis=0),
                    )
                ],
            ),
            "way": count(WAY, odd=(3,)),
            "batch_size": count(1, 4),
            "transduction": one_of(
                None, bad=[Spoilt(v, refused=True) for v in (3, (1,), fewshot.Transduction())]
            ),
        },
        holds=lambda found, given: bool(((found >= 0) & (found <= 1)).all()),
    ),
    "guided_loss": Case(
        with_episode(fewshot.guided_loss),
        {
            **EPISODE,
            "options": one_of(
                {},
                {"guidance": fewshot.PLAIN, "train_encoder": False},
                bad=[
                    *(Spoilt({"guidance": v}, refused=True) for v in (None, 3, "guided")),
                    *(Spoilt({"classifier_weight": v}, refused=True) for v in (None, -1.0, "all", np.nan)),
                ],
            ),
        },
        **FINITE_LOSS,
    ),
    "head_loss": Case(
        of_features(fewshot.head_loss),
        {**SYSTEM, **IMAGES, "way": WAYS, "episode_given": NO_EPISODE, "guidance": GUIDANCE},
        **FINITE_LOSS,
    ),
    "init_multi_domain": Case(
        lambda encoder, head, key, **given: fewshot.init_multi_domain(
            encoder, system(head, None)[0], key, **given
        ),
        {
            "encoder": ENCODER,
            "head": HEAD,
            "key": key(),
            "image_size": SIZE,
            "num_classes": count(None, 3),
            "transformation": MAYBE,
        },
    ),
    "init_transformation": Case(
        fewshot.init_transformation,
        {
            "encoder": ENCODER,
            "image_size": SIZE,
            "paths": one_of(None, ["bn*"], bad=[Spoilt(v, refused=True) for v in (["no"], 3, [3], "no")]),
            "scale": number(0.3, -1.0),
            "shift": number(0.5),
        },
    ),
    "init_variables": Case(
        lambda encoder, head, key, image_size: fewshot.init_variables(
            encoder, system(head, None)[0], key, image_size=image_size
        ),
        {"encoder": ENCODER, "head": HEAD, "key": key(), "image_size": SIZE},
    ),
    "learned_transformation_loss": Case(
        loss_of(fewshot.learned_transformation_loss),
        {
            "encoder": ENCODER,
            "head": HEAD,
            "pair": one_of(True),
            "learning_rate": number(0.1, wrong=(0.0, -1.0)),
            "guidance": GUIDANCE,
            "num_steps": count(None, 10),
        },
        holds=lambda found, given: found == (),
    ),
    "hierarchical_interval": Case(
        fewshot.hierarchical_interval,
        {"values": array("nh", wrap=np.asarray), "num_draws": count(1, 20), "seed": count(0, 3, least=0)},
        undefined="NaN limits of a single seed",
    ),
    "log_odds": Case(
        fewshot.log_odds,
        {"scores": array("nk")},
        holds=lambda found, given: found.shape == given["scores"].shape,
    ),
    "mean_and_interval": Case(fewshot.mean_and_interval, {"values": array("h", wrap=np.asarray)}),
    "part": Case(
        lambda variables, name: fewshot.part(system("RelationHead", variables)[1], name),
        {"variables": SYSTEM["variables"], "name": choice("encoder", "head")},
    ),
    "prototypes": Case(
        fewshot.prototypes,
        {"support": TASK["support"], "labels": TASK["support_labels"], "way": WAYS},
        undefined="NaN of NaN",
        holds=lambda found, given: len(found) == WAY and bool(jnp.isfinite(found).all()),
    ),
    "released_weight": Case(
        fewshot.released_weight, {"shot": count(1, 5, least=0)}, holds=lambda found, given: 0.5 <= found <= 1
    ),
    "transductive_scores": Case(
        of_features(fewshot.transductive_scores),
        {
            **SYSTEM,
            "head": one_of("PrototypeHead", "MatchingHead"),
            **TASK,
            "query_labels": one_of(None, np.repeat(np.arange(WAY), QUERIES // WAY), bad=NO_LABELS),
            "way": WAYS,
            "episode_given": NO_EPISODE,
            "transduction": TRANSDUCTION,
        },
        undefined="NaN of NaN",
        holds=lambda found, given: found.shape == (QUERIES, WAY) and bool(jnp.isfinite(found).all()),
    ),
    "transformed_loss": Case(
        loss_of(fewshot.transformed_loss),
        {
            "encoder": ENCODER,
            "head": HEAD,
            "pair": one_of(False),
            "transformation": TRANSFORMATION,
            "guidance": GUIDANCE,
            "num_steps": count(None, 10),
        },
    ),
}


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    with jax.disable_jit():
        search(name, CASES[name], examples)


def test_every_public_function_is_here():
    assert not unheard_of("fewshot", CASES, EXEMPT)


def test_integers_of_labels_are_seen_under_jit_too():
    with pytest.raises(TypeError, match="expected support_labels of integers"):
        jax.jit(lambda x, y: fewshot.prototypes(x, y, 2))(maps(2), jnp.ones(2))


def test_labels_below_0_of_any_number_of_classes():
    labels = np.array([0, -1])
    with pytest.raises(ValueError, match="expected classes of at least 0, got values from -1 to 0: count"):
        check_labels("classes", labels, count=2)
    with pytest.raises(ValueError, match=r"expected classes in \[0, 3\), got values from -1 to 0: count"):
        check_labels("classes", labels, count=2, way=3)
