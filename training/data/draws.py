"""Random numbers without a state: each is a function of a sample's key, what it is drawn for, and its number.

So a sample's draws don't depend on which samples it meets in a batch, nor on the rank or worker that makes it. The
numbers are those of SplitMix64 (Steele, Lea and Flood 2014), one sequence for each key and stream.
"""

from __future__ import annotations

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 8
_TINY = 2.0**-54
"""Half of the smallest step between two uniform numbers: none of them is 0, whose logarithm there isn't."""


def keys_of(seed: int, positions: np.ndarray) -> np.ndarray:
    """uint64 (n,): the key of each global position, int64 (n,), of a run with that seed."""
    start = _mixed(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))
    return _mixed(start + (positions.astype(np.uint64) + np.uint64(1)) * _STEP)


def stream(keys: np.ndarray, number: int | np.ndarray) -> np.ndarray:
    """Keys of a sequence of its own for each key. number: of the stream, or one for each key."""
    return _mixed(keys + _mixed(np.atleast_1d(number).astype(np.uint64) * _STEP + np.uint64(1)))


def bits(keys: np.ndarray, count: int) -> np.ndarray:
    """uint64 (*keys.shape, count): the first numbers of each key's sequence."""
    return _mixed(keys[..., None] + np.arange(1, count + 1, dtype=np.uint64) * _STEP)


def uniforms(keys: np.ndarray, count: int) -> np.ndarray:
    """float64 (*keys.shape, count) in (0, 1)."""
    return (bits(keys, count) >> np.uint64(11)) * 2.0**-53 + _TINY


def chances(keys: np.ndarray, count: int, shares: np.ndarray) -> np.ndarray:
    """bool (*keys.shape, count): true with the probability that `shares`, float64 of the keys' shape, has for each.

    To within 1 in 131,072: four draws come out of one number.
    """
    drawn = bits(keys, -(-count // 4)).view(np.uint16)[..., :count]
    limits = np.round(shares * 2.0**16)[..., None]
    return (drawn < np.minimum(limits, 2**16 - 1).astype(np.uint16)) | (limits == 2**16)


def shuffles(keys: np.ndarray, length: int) -> np.ndarray:
    """uint32 (n, length): the numbers 0 .. length - 1 in an order drawn for each key; of up to 65,536 numbers."""
    width = np.uint32((length - 1).bit_length())
    drawn = bits(keys, -(-length // 2)).view(np.uint32)[:, :length] >> width << width
    drawn |= np.arange(length, dtype=np.uint32)
    drawn.sort(axis=1)
    drawn &= (np.uint32(1) << width) - np.uint32(1)
    return drawn


def permuted(keys: np.ndarray, numbers: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """int64 (n,): where each number, in 0 .. limit - 1, goes in a permutation of these drawn for its key and limit.

    A Feistel network (Luby and Rackoff 1988) over the next power of two, of eight rounds whose functions are draws;
    what comes out above the limit is sent through again (Black and Rogaway 2002).
    """
    wide = np.frexp(limits - 1)[1].astype(np.uint64)  # bits of the largest number
    low, high = wide // np.uint64(2), wide - wide // np.uint64(2)
    found, left = numbers.astype(np.uint64), np.arange(len(numbers))
    while left.size:
        key, right_bits = keys[left], low[left]
        left_mask, right_mask = ((np.uint64(1) << some[left]) - np.uint64(1) for some in (high, low))
        upper, lower = found[left] >> right_bits, found[left] & right_mask
        for half in range(0, _ROUNDS, 2):
            upper ^= bits(stream(key, half) ^ lower, 1)[:, 0] & left_mask
            lower ^= bits(stream(key, half + 1) ^ upper, 1)[:, 0] & right_mask
        found[left] = upper << right_bits | lower
        left = left[found[left] >= limits[left].astype(np.uint64)]
    return found.astype(np.int64)


def below(keys: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """int64, of the keys' shape: a number in 0 .. limit - 1 for each."""
    return (uniforms(keys, 1)[..., 0] * limits).astype(np.int64)


def log_gammas(keys: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """float64 (n, m): logarithms of draws from Gamma(shape, 1), for shapes (n, m) above 0, however small; -inf for NaN.

    Marsaglia and Tsang 2000 for shape + 1, times U^(1 / shape). In logarithms, since draws of small shapes underflow.
    """
    rows, columns = np.nonzero(~np.isnan(shapes))
    sequences, shape = stream(keys[rows], columns), shapes[rows, columns]
    d = shape + 2 / 3
    drawn, left, attempt = np.empty(len(d)), np.arange(len(d)), 0
    while left.size:
        attempt += 1
        one, two, three = np.moveaxis(uniforms(stream(sequences[left], attempt), 3), -1, 0)
        normal = np.sqrt(-2 * np.log(one)) * np.cos(2 * np.pi * two)  # Box and Muller 1958
        size = d[left]
        root = 1 + normal / np.sqrt(9 * size)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_cube = 3 * np.log(root)
            taken = (root > 0) & (np.log(three) < normal**2 / 2 + size - size * root**3 + size * log_cube)
        drawn[left[taken]] = np.log(size[taken]) + log_cube[taken]
        left = left[~taken]
    made = np.full(shapes.shape, -np.inf)
    made[rows, columns] = drawn + np.log(uniforms(sequences, 1)[:, 0]) / shape
    return made


def _mixed(values: np.ndarray) -> np.ndarray:
    """Of arrays, whose products wrap round without a warning."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
