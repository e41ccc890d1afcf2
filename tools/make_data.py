"""Writes normviz/data/*.npz, the digits and photographs that travel in the package, from scikit-learn's own files.

python tools/make_data.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits, load_sample_images

FOLDER = Path(__file__).parents[1] / "normviz" / "data"


def main() -> None:
    digits = load_digits()
    np.savez_compressed(
        FOLDER / "digits.npz", images=digits.images.astype(np.uint8), labels=digits.target.astype(np.uint8)
    )
    photos = np.stack(load_sample_images().images).transpose(0, 3, 1, 2)  # (2, 3, 427, 640)
    red, green, blue = photos.transpose(1, 0, 2, 3)
    planes = np.stack([green, red - green, blue - green], axis=1)  # modulo 256, as all that follows
    for axis in (2, 3):  # what is left of a pixel once its left and upper neighbours are known compresses well
        planes = np.diff(planes, axis=axis, prepend=np.uint8(0))
    np.savez_compressed(FOLDER / "photos.npz", planes=planes)


if __name__ == "__main__":
    main()
