//! The heartbeat: one UDP datagram that says «I am here, this busy, and have applied event N».
//!
//! Layout (integers little-endian): `LHB1`, key-hashed BLAKE3 of the rest (32 bytes), `sent_ms` u64, `seq` u64, `applied` u64,
//! `load` u32, name length u8, name. A datagram with a wrong tag is dropped without an answer. `sent_ms` is the sender's
//! clock at its start and `seq` counts from there, so that the pair only grows and an old datagram cannot be replayed.

use crate::names::NodeName;

/// Longest heartbeat in bytes.
pub const MAX_HEARTBEAT_BYTES: usize = 4 + 32 + 8 * 3 + 4 + 1 + crate::names::MAX_NAME_BYTES;
const MAGIC: &[u8; 4] = b"LHB1";

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub node: NodeName,
    /// The sender's clock when it started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Counts the heartbeats since then.
    pub seq: u64,
    /// The newest event applied.
    pub applied: u64,
    /// Requests in progress.
    pub load: u32,
}

impl Heartbeat {
    /// The datagram, authenticated with `key`.
    pub fn encode(&self, key: &[u8; 32]) -> Vec<u8> {
        let name = self.node.as_str().as_bytes();
        let mut rest = Vec::with_capacity(MAX_HEARTBEAT_BYTES);
        rest.extend_from_slice(&self.started_ms.to_le_bytes());
        rest.extend_from_slice(&self.seq.to_le_bytes());
        rest.extend_from_slice(&self.applied.to_le_bytes());
        rest.extend_from_slice(&self.load.to_le_bytes());
        rest.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        rest.extend_from_slice(name);
        let mut datagram = Vec::with_capacity(MAX_HEARTBEAT_BYTES);
        datagram.extend_from_slice(MAGIC);
        datagram.extend_from_slice(blake3::keyed_hash(key, &rest).as_bytes());
        datagram.extend_from_slice(&rest);
        datagram
    }

    /// The heartbeat in `datagram`, or nothing when it is malformed or not made with `key`.
    pub fn decode(datagram: &[u8], key: &[u8; 32]) -> Option<Self> {
        let rest = datagram.strip_prefix(MAGIC)?;
        let (tag, rest) = rest.split_first_chunk::<32>()?;
        // Comparing `Hash`es is constant-time.
        if blake3::keyed_hash(key, rest) != blake3::Hash::from_bytes(*tag) {
            return None;
        }
        let (started_ms, rest) = rest.split_first_chunk::<8>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (applied, rest) = rest.split_first_chunk::<8>()?;
        let (load, rest) = rest.split_first_chunk::<4>()?;
        let (len, name) = rest.split_first()?;
        if name.len() != usize::from(*len) {
            return None;
        }
        Some(Self {
            node: std::str::from_utf8(name).ok()?.parse().ok()?,
            started_ms: u64::from_le_bytes(*started_ms),
            seq: u64::from_le_bytes(*seq),
            applied: u64::from_le_bytes(*applied),
            load: u32::from_le_bytes(*load),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_damaged_byte_is_refused() {
        let beat = Heartbeat { node: "lisbon".parse().expect("name"), started_ms: 1, seq: 2, applied: 3, load: 4 };
        let key = [7; 32];
        let datagram = beat.encode(&key);
        assert!(datagram.len() <= MAX_HEARTBEAT_BYTES);
        assert_eq!(Heartbeat::decode(&datagram, &key), Some(beat));
        assert_eq!(Heartbeat::decode(&datagram, &[8; 32]), None);
        for at in 0..datagram.len() {
            let mut bad = datagram.clone();
            bad[at] ^= 1;
            assert_eq!(Heartbeat::decode(&bad, &key), None, "byte {at}");
            assert_eq!(Heartbeat::decode(&datagram[..at], &key), None, "cut at {at}");
        }
    }
}
