"""The models that come with the repository are as ``weights/index.json`` says."""

import hashlib
import json

import numpy as np
import pytest

from jointiq.coding import shipped
from jointiq.coding.image_codec import decode_image, encode_image, same_latents
from tools.shipping.card import BEGIN, CARD, END, filled
from tools.shipping.ship import LIMIT_MB

MODELS = shipped.shipped_models()


def test_the_card_has_markers_for_the_tables():
    text = (shipped.WEIGHTS / CARD).read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1


def test_the_index_and_the_folder_hold_the_same_files():
    listed = {model.path.name for model in MODELS}
    assert {path.name for path in shipped.WEIGHTS.glob("*.safetensors")} == listed
    assert sum(model.path.stat().st_size for model in MODELS) <= LIMIT_MB * 1e6


def test_the_card_holds_the_numbers_of_the_index():
    index = json.loads((shipped.WEIGHTS / shipped.INDEX).read_text(encoding="utf-8"))
    text = (shipped.WEIGHTS / CARD).read_text(encoding="utf-8")
    assert filled(text, index) == text
    for model in MODELS:
        bpp = [point["bpp"] for point in model.facts["measured"]]
        assert bpp == sorted(set(bpp)) and len(bpp) > 4


@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_each_model_codes_a_picture(model, picture):
    assert model.facts["bytes"] == model.path.stat().st_size
    assert hashlib.sha256(model.path.read_bytes()).hexdigest() == model.sha256
    network = shipped.load_shipped(model)
    image = picture(50, 77)
    encoded = encode_image(network, image)
    decoded = decode_image(network, encoded.data)
    assert same_latents(encoded, decoded)
    assert shipped.of_fingerprint(encoded.data[4:8]) == model
    assert np.square(image.astype(float) - decoded.image).mean() < np.square(image - image.mean()).mean()
