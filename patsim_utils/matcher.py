"""`from patsim_utils.matcher import Matcher`: the address that users have."""

from patsim_utils.method.matcher import Matcher as Matcher
