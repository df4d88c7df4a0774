"""What the photographs of the tests show."""

from __future__ import annotations

CAPTIONS = {
    "astronaut": "An astronaut in an orange suit smiles in front of a flag and a model of the Space Shuttle.",
    "chelsea": "A tabby cat looks past the camera.",
    "china": "A temple with a curved roof stands behind trees.",
    "coffee": "A cup of espresso on a saucer with a spoon, on a wooden table.",
    "flower": "A pink dahlia in front of dark leaves.",
    "rocket": "A rocket lifts off at night among lightning towers.",
}
