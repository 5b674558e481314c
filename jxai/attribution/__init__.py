"""Gradient attribution of any JAX function: estimators that are pure, chunked and spread over devices when asked."""

from jxai.attribution.ablation import feature_ablation, feature_permutation
from jxai.attribution.adaptive import AdaptiveNoise, adaptive_noise
from jxai.attribution.baselines import blurred_baseline, uniform_baselines
from jxai.attribution.blur import blur_ig
from jxai.attribution.cam import eigen_cam, score_cam
from jxai.attribution.contrast import contrast
from jxai.attribution.deep_lift import deep_lift, deep_lift_shap
from jxai.attribution.expected import expected_gradients
from jxai.attribution.grad_cam import grad_cam, grad_cam_plus_plus, guided_grad_cam, layer_cam
from jxai.attribution.gradients import gradient, input_x_gradient
from jxai.attribution.guided import guided_ig
from jxai.attribution.integrated import convergence_delta, integrated_gradients
from jxai.attribution.layers import conductance, internal_influence, neuron_conductance
from jxai.attribution.occlusion import occlusion
from jxai.attribution.rise import rise
from jxai.attribution.shapley import shapley_sampling
from jxai.attribution.smooth import smooth_grad, smooth_taylor, taylor_at_roots
from jxai.attribution.surrogates import kernel_shap, lime

__all__ = [
    "AdaptiveNoise",
    "adaptive_noise",
    "blur_ig",
    "blurred_baseline",
    "conductance",
    "contrast",
    "convergence_delta",
    "deep_lift",
    "deep_lift_shap",
    "eigen_cam",
    "expected_gradients",
    "feature_ablation",
    "feature_permutation",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient",
    "guided_grad_cam",
    "guided_ig",
    "input_x_gradient",
    "integrated_gradients",
    "internal_influence",
    "kernel_shap",
    "layer_cam",
    "lime",
    "neuron_conductance",
    "occlusion",
    "rise",
    "score_cam",
    "shapley_sampling",
    "smooth_grad",
    "smooth_taylor",
    "taylor_at_roots",
    "uniform_baselines",
]
