"""Pictures of inputs and samples as addresses that hold them."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image


def data_url(image: np.ndarray) -> str:
    """Return a picture as a ``data:`` address.

    Parameters
    ----------
    image : np.ndarray
        Values in [0, 1], shape (height, width, 1 or 3). Values that are no numbers are black.
    """
    pixels = (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
