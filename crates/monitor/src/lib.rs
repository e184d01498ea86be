//! The monitor role: heartbeats in, who is alive out.
