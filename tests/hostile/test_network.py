"""No network: neither an import nor an explanation nor a training step asks for one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Imports every module and uses the main parts, where nothing can be reached or looked up.
PROGRAM = """
import importlib, os, pkgutil, socket, sys

def refuse(*arguments, **options):
    raise AssertionError(f"expected no network, got {arguments}")

# Event loops need pairs of sockets within the process; nothing may go further.
for method in ("connect", "connect_ex", "sendto", "bind", "listen"):
    setattr(socket.socket, method, refuse)
for function in ("create_connection", "getaddrinfo", "gethostbyname", "create_server"):
    setattr(socket, function, refuse)

import jax
import jxai

modules = [module.name for module in pkgutil.walk_packages(jxai.__path__, "jxai.")]
sys.path.append(sys.argv[1])
import experiments

modules += [module.name for module in pkgutil.walk_packages(experiments.__path__, "experiments.")]
for name in modules:
    if name.endswith("__main__"):
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # the rivals' side of the benchmarks
        assert error.name in ("torch", "torchvision", "captum", "zennit", "quantus"), error

import jax.numpy as jnp
import numpy as np
from jxai import attribution, data, fewshot, lrp, metrics, models, training

source = data.load("thai")
encoder, head = models.Conv4NP(width=2), fewshot.RelationHead(features=2, hidden=2)
episodes = data.episode_dataset(source, way=2, shot=1, num_query=1, seed=0)
variables = fewshot.init_variables(encoder, head, jax.random.key(0), image_size=32)
optimizer = training.make_optimizer(training.OptimizerConfig(), num_steps=1)
loss = lambda variables, episode, key, step: fewshot.guided_loss(encoder, head, variables, episode)
step = training.pmap_step(training.make_step(loss, optimizer), devices=jax.devices()[:1])
state = training.TrainState.create(jax.random.key(1), variables, optimizer=optimizer)
checkpoints = training.Checkpoints(os.environ["JXAI_DATA"] + "/checkpoints")
result = training.fit(step, state, data.iterate(episodes), num_steps=1, checkpoints=checkpoints, progress=False)
checkpoints.close()
f = lambda x: encoder.apply(fewshot.part(result.state.variables, "encoder"), x, train=False).mean((1, 2))
x, target = jnp.asarray(source.array(32)[:1]), jnp.zeros(1, int)
found = attribution.smooth_taylor(f, jax.random.key(0), x, target, num_roots=2)
assert np.isfinite(metrics.average_total_variation(found.sum(-1))).all()
assert np.isfinite(lrp.relevance(f, x, target, composite=lrp.EpsilonPlus())).all()
print("done", len(modules))
"""


@pytest.mark.parametrize(
    "alone",
    [
        pytest.param(False, id="no sockets", marks=pytest.mark.long),
        pytest.param(True, id="a network namespace of its own", marks=pytest.mark.slow),
    ],
)
def test_nothing_asks_for_a_network(alone, tmp_path):
    # In a namespace without interfaces libraries written in C++ cannot reach anything either.
    command = ["unshare", "--net"] if alone else []
    if alone and (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("expected the right to make a network namespace, got none")
    done = subprocess.run(
        [*command, sys.executable, "-c", PROGRAM, str(ROOT)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=tmp_path,
        env={
            "JXAI_DATA": str(tmp_path),
            "HOME": str(tmp_path),
            "JAX_PLATFORMS": "cpu",
            "PATH": "/usr/bin:/bin",
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("done ")
