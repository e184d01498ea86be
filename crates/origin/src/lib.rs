//! The origin role: streams uploads into object storage, serves edges on a miss.
