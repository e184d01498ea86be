//! The edge's tiers: a weighted memory tier.
