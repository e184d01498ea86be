//! The typed client of the API, over net.
