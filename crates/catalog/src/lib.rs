//! SQL truth: zones, nodes, files, versions, placements, events, tokens.
