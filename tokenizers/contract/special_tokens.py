"""Ids that mean the same in every text vocabulary, as in the public one of ml-4m.

0..3        [PAD] [UNK] [SOS] [EOS]
4..203      sentinels [S_0] .. [S_199], for span masking
204..4203   coordinates v0=0 .. v0=999, v1=0 .. v1=999, v2=.., v3=..
"""

PAD, UNK, SOS, EOS = range(4)
SENTINELS = 200
COORDINATE_AXES, COORDINATE_BINS = 4, 1000
FIRST_SENTINEL = 4
FIRST_COORDINATE = FIRST_SENTINEL + SENTINELS
FIRST_WORD = FIRST_COORDINATE + COORDINATE_AXES * COORDINATE_BINS
