"""The paper's own setting: ResNet10 at 224 pixels."""

from configs.few_shot import Config, Pretraining
from jxai.training import OptimizerConfig


def mini_imagenet() -> Config:
    """RelationNet with ResNet10 at 224 pixels as released; needs a folder of miniImageNet's class folders.

    Command: python experiments/train.py mini-imagenet --folder runs/mini --config.sources /data/miniImageNet
    Time: not measured on a GPU; on two CPU cores a guided episode takes 14 s (experiments/benchmarks/guided_step.py).
    Expected: not known: the paper's numbers for RelationNet are not at hand, and miniImageNet was not here.
    """
    return Config(
        sources=("miniImageNet",),
        encoder="resnet10",
        width=64,
        image_size=224,
        augment=True,
        head_width=512,
        pretraining=Pretraining(steps=400 * 2400, batch_size=16, optimizer=OptimizerConfig()),
        steps=400 * 100,
        eval_every=1000,
        validation_episodes=600,
    )
