"""Broken label files: ``python -m tests.fuzz_labels 10000 [format …]``.

Bytes of the tiny inputs are flipped, cut, doubled and exchanged for troublesome words. Whatever
comes in, reading must end in a `UserError` or in samples with an account that adds up; any other
exception is a defect. Prints the seed of each failure.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.readers import read_labels
from tests.label_inputs import TINY, Tiny

WORDS = (b"-1", b"NaN", b"1e999", b"null", b"[]", b"{}", b'""', b"0", b"9" * 30, b"\xff", b"true")


def broken(content: bytes, rng: random.Random) -> bytes:
    """One to three mutations."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at:]
            case 2:
                del data[at : at + rng.randint(1, 20)]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 20)]
            case 4:
                data[at : at + rng.randint(0, 4)] = rng.choice(WORDS)
            case _:
                numbers = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
                if numbers:
                    data[rng.choice(numbers)] = rng.choice(b"0123456789-.e")
    return bytes(data)


def check_once(name: str, tiny: Tiny, folder: Path, seed: int) -> bool:
    """Break one label file, read, repair it. Whether it could be read nevertheless.

    Raises:
        AssertionError: the account does not add up, or the result is empty without an error.
    """
    rng = random.Random(f"{name}:{seed}")
    victim = folder / rng.choice(sorted(tiny.files))
    whole = victim.read_bytes()
    victim.write_bytes(broken(whole, rng))
    media = folder / tiny.media if tiny.media else None
    try:
        samples, report = read_labels(name, folder / tiny.path, media, **tiny.options)
    except UserError:
        return False
    finally:
        victim.write_bytes(whole)
    assert samples, seed
    for count in report.counts:
        assert count.read == count.kept + count.left_out + count.dropped, (seed, count)
    assert sum(count.read for count in report.counts), seed
    return True


def main(arguments: list[str]) -> int:
    """Fuzz the formats named, or all of them."""
    rounds, names = int(arguments[0]), arguments[1:] or list(TINY)
    failures = 0
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            TINY[name].write(Path(place))
            read = 0
            for seed in range(rounds):
                try:
                    read += check_once(name, TINY[name], Path(place), seed)
                except Exception as error:
                    failures += 1
                    print(f"{name} seed {seed}: {type(error).__name__}: {error}")
            print(f"{name}: {rounds} broken files, {read} read nevertheless")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
