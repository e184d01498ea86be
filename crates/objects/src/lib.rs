//! Object storage: content-addressed blobs in a folder, S3 or memory.
