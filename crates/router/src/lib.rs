//! The router role: the front door that sends each client to an edge.
