"""Entropy models: likelihoods of the latents, and the integer networks that code them.

To add one: put a file into this folder with a class that derives from
:class:`jointiq.entropy_models.base.EntropyModel` and carries ``@register_entropy_model("name", its settings)``, and a
YAML file with ``entropy_model: name`` and values for the settings into ``conf/entropy_model``. Nothing else is touched:
every module of the folder is imported with the package.
"""

from __future__ import annotations

from jointiq.entropy_models.base import EntropyModel
from jointiq.parts import Registry, import_all

ENTROPY_MODELS: Registry[EntropyModel] = Registry("model.entropy_model")
register_entropy_model = ENTROPY_MODELS.register

import_all(__name__, __path__)
