//! A whole CDN in one process, and the scenarios that run on it.
