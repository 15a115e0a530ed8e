"""CIFAR-10 batches for the PyTorch side: the binary files, or a stand-in of their format.

The stand-in needs no download and no random generator: every value is an integer hash of its
position (the formula is also what the C++ tests compute), and it can be learned, so that a wrong
gradient shows in the losses.
"""

from pathlib import Path

import numpy as np

RECORD = 3073  # one label byte, then 3 x 32 x 32 pixels, channel by channel
PER_FILE = 10000
TRAIN_FILES = [f"data_batch_{i}.bin" for i in range(1, 6)]
FILES = TRAIN_FILES + ["test_batch.bin"]


def fnv1a(text):
    """64-bit FNV-1a of the bytes of `text`."""
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def splitmix64(x):
    """SplitMix64's output for state `x` (Steele et al. 2014), element by element, modulo 2^64."""
    z = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hashes(name, start, count):
    """splitmix64(fnv1a(name) + i) for i in [start, start + count), modulo 2^64."""
    base = np.uint64((fnv1a(name) + start) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        return splitmix64(base + np.arange(count, dtype=np.uint64))


def hashed_batch(start, count):
    """Samples [start, start + count) of the stand-in: u8 images [count, 3, 32, 32], i64 labels."""
    labels = (hashes("label", start, count) % np.uint64(10)).astype(np.int64)
    noise = (hashes("image", start * 3072, count * 3072) >> np.uint64(56)).astype(np.uint16)
    # Class patterns of 4 x 4 squares of 8 x 8 pixels in each channel.
    pattern = (hashes("pattern", 0, 10 * 3 * 4 * 4) >> np.uint64(56)).astype(np.uint16)
    pattern = pattern.reshape(10, 3, 4, 4).repeat(8, axis=2).repeat(8, axis=3)
    # A quarter of the samples show another class's pattern, so that losses stay well above zero,
    # where relative differences mean something.
    swapped = hashes("swap", start, count) % np.uint64(4) == 0
    other = (hashes("other", start, count) % np.uint64(10)).astype(np.int64)
    shown = np.where(swapped, other, labels)
    images = (pattern[shown] + noise.reshape(count, 3, 32, 32)) >> 1
    return images.astype(np.uint8), labels


def write_standin(folder):
    """Writes the six files of CIFAR-10's binary form; each repeats the same 10,000 samples."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = np.empty((PER_FILE, RECORD), dtype=np.uint8)
    for start in range(0, PER_FILE, 1000):
        images, labels = hashed_batch(start, 1000)
        records[start : start + 1000, 0] = labels
        records[start : start + 1000, 1:] = images.reshape(1000, 3072)
    for name in FILES:
        records.tofile(folder / name)
    return folder


def find(folder):
    """The folder that holds data_batch_1.bin: `folder` itself or its cifar-10-batches-bin."""
    for candidate in (Path(folder), Path(folder) / "cifar-10-batches-bin"):
        if (candidate / TRAIN_FILES[0]).is_file():
            return candidate
    raise FileNotFoundError(
        f"[data] no {TRAIN_FILES[0]} in {folder} nor in its cifar-10-batches-bin: give the folder "
        "of CIFAR-10's binary version"
    )


def read_batch(folder, start, count):
    """Training samples [start, start + count) in file order: u8 images, i64 labels."""
    folder = find(folder)
    images = np.empty((count, 3, 32, 32), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    done = 0
    while done < count:
        file_index, offset = divmod(start + done, PER_FILE)
        if file_index >= len(TRAIN_FILES):
            raise ValueError(f"[data] sample {start + done} asked, CIFAR-10 has 50000")
        take = min(count - done, PER_FILE - offset)
        path = folder / TRAIN_FILES[file_index]
        raw = np.fromfile(path, dtype=np.uint8, count=take * RECORD, offset=offset * RECORD)
        if raw.size != take * RECORD:
            raise ValueError(f"[data] {path}: truncated, {PER_FILE * RECORD} bytes expected")
        raw = raw.reshape(take, RECORD)
        labels[done : done + take] = raw[:, 0]
        images[done : done + take] = raw[:, 1:].reshape(take, 3, 32, 32)
        done += take
    return images, labels


def normalise(images, dtype=np.float32):
    """(x / 255 - 0.5) / 0.5, computed in double and rounded once to `dtype`."""
    table = ((np.arange(256) / 255.0 - 0.5) / 0.5).astype(dtype)
    return table[images]
