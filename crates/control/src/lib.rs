//! The control role: owns the catalog, serves the API and the event stream.
