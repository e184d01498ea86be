//! Littoral: a complete content delivery network in one binary.
