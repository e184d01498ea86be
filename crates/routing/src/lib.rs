//! Which edge serves a client: a pure decision that explains itself.
