"""What tests of training share."""

from disk import no_power_cuts as no_power_cuts
