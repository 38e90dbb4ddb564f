"""Train a classifier of digits on the folder that the command line names, wherever it came from."""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, random_split


class Digits(Dataset):
    """Images and their digits, which are the names of their folders."""

    def __init__(self, folder):
        self.files = sorted(Path(folder).glob("*/*.png"))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        file = self.files[index]
        with Image.open(file) as image:
            pixels = np.asarray(image, dtype=np.float32) / 255
        return torch.from_numpy(pixels).flatten(), int(file.parent.name)


torch.manual_seed(0)
training, held_out = random_split(Digits(sys.argv[1]), [0.8, 0.2])
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
loader = DataLoader(training, batch_size=32, shuffle=True, num_workers=2, persistent_workers=True)
for _ in range(10):
    for pixels, digits in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(pixels), digits).backward()
        optimizer.step()
with torch.no_grad():
    right = sum((model(pixels).argmax(1) == digits).sum().item() for pixels, digits in DataLoader(held_out, 32))
print(f"{len(training)} images; more than 9 of 10 of {len(held_out)} others are right: {right > 0.9 * len(held_out)}")
