//! The only place that knows hyper: listen, connect, limits, drain; heartbeats over UDP.
