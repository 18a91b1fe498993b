"""Profile our encoder and decoder: the processor time of each section.

Functions are wrapped while a profile runs. The time of a section is that of its functions without other wrapped
functions that they call, so that the sections add up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from jointiq.bitstream import binarisation, rans
from jointiq.coding import image_codec
from jointiq.enhancers import grdn
from jointiq.entropy_models import gaussian_mixture
from jointiq.entropy_models.integer import context, recorder
from jointiq.evaluation.stopwatch import Sections
from jointiq.layers import block_context, estimator, global_context, quarters, transforms

OTHER = "everything else"


def wrapped_functions() -> list[tuple[str, Any, str]]:
    """Return (section, owner, attribute) of all functions that are timed."""
    return [
        ("g_a", transforms.AnalysisTransform, "forward"),
        ("g_s", transforms.SynthesisTransform, "forward"),
        ("h_a", transforms.HyperAnalysis, "forward"),
        ("GRDN", grdn.GRDN, "forward"),
        ("h_s", transforms.IntegerHyperSynthesis, "__call__"),
        ("estimator: hyper windows", estimator.EstimatorState, "__init__"),
        ("estimator: per step", estimator.EstimatorState, "read"),
        ("estimator: write", estimator.EstimatorState, "write"),
        ("global context: start", global_context.GlobalContextState, "__init__"),
        ("global context: write", global_context.GlobalContextState, "write"),
        ("global context: write", global_context.GlobalContextState, "write_grid"),
        ("global context: moments", global_context.GlobalContextState, "read"),
        ("global context: sums", global_context.CausalSums, "read"),
        ("estimator: per step", quarters.QuarterEstimatorState, "read"),
        ("estimator: write", quarters.QuarterEstimatorState, "write"),
        ("global context: write", block_context.BlockContextState, "write"),
        ("global context: sums", block_context.BlockContextState, "read"),
        ("mixture: weights, centre", gaussian_mixture.IntegerMixture, "__init__"),
        ("mixture: CDF", gaussian_mixture.IntegerMixture, "below"),
        ("decisions: table index", binarisation, "level_of"),
        ("decisions: binarise", context, "binarise"),
        ("decisions: binarise", recorder, "binarise"),
        ("rANS: decode", rans.DecisionDecoder, "_read"),
        ("rANS: encode", recorder, "encode_decisions"),
        ("encoder: collect", recorder.Recorder, "record"),
        ("encoder: sort", recorder.Recorder, "encode"),
        ("latents' checksum", image_codec, "latents_crc"),
    ]


@contextlib.contextmanager
def profiled() -> Iterator[Sections]:
    """Time all sections while this context lasts."""
    sections = Sections()
    began = time.process_time()
    functions = wrapped_functions()
    originals = [getattr(owner, name) for _, owner, name in functions]
    try:
        for (section, owner, name), original in zip(functions, originals, strict=True):
            setattr(owner, name, sections.measure(section, original))
        yield sections
    finally:
        for (_, owner, name), original in zip(functions, originals, strict=True):
            setattr(owner, name, original)
        total = time.process_time() - began
        sections.spent[OTHER] += total - sum(sections.spent.values())
