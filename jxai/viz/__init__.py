"""Pictures of explanations and of training: heat maps, texts, sheets, curves, ink shares, the flow of relevance."""

from jxai.viz.curves import learning_curves
from jxai.viz.flow import relevance_flow
from jxai.viz.heatmap import diverging_colors, heatmap, overlay, shared_scale, signed_sum
from jxai.viz.ink import ink_mask, ink_share
from jxai.viz.inline import InlineMaps, inline
from jxai.viz.methods import method_sheet
from jxai.viz.sheet import episode_sheet, support_sheet
from jxai.viz.text import TextMaps, patch_means, text_ansi, text_maps, text_sheet, token_matrix

__all__ = [
    "InlineMaps",
    "TextMaps",
    "diverging_colors",
    "episode_sheet",
    "heatmap",
    "ink_mask",
    "ink_share",
    "inline",
    "learning_curves",
    "method_sheet",
    "overlay",
    "patch_means",
    "relevance_flow",
    "shared_scale",
    "signed_sum",
    "support_sheet",
    "text_ansi",
    "text_maps",
    "text_sheet",
    "token_matrix",
]
