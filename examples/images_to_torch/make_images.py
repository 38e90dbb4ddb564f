"""Write scikit-learn's 1,797 handwritten digits to `images`: a PNG file each, in a folder for each digit."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
    file = Path(f"images/{digit}/{number:04}.png")
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 15).astype("uint8")).save(file)
