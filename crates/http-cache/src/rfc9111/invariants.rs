//! What holds of any bytes at all: nothing panics, and what forbids storing cannot be hidden.
