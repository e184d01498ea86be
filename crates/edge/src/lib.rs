//! The edge role: the cache that serves people.
