//! HTTP caching decisions as pure functions: no I/O, no clock.
