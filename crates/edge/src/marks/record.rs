//! What is written into the log of marks: one record for each change of the state.
//!
//! A record is its kind (one byte) and its fields, all numbers little-endian:
//!
//! | kind | fields |
//! | --- | --- |
//! | 1 opened | id of the machine's start (16 bytes; zeros: not known), first local number (8) |
//! | 2 closed | – |
//! | 3 continued: the next log follows | – |
//! | 4 event | number (8), names |
//! | 5 local mark | number (8), names |
//! | 6 skipped to an event | number (8) |
//! | 7 started over | era (8), number (8), length of the catalog's id (4), the id |
//!
//! Names come to the end of the record, each as flags (1 soft, 2 prefix), hash (8), and of a prefix its length (4). They
//! are hashes and not texts, because the table keeps no texts either, and so nothing has to be parsed at a start.

use super::fields::{Fields, push_text};
use crate::purges::Named;

const SOFT: u8 = 1;
const PREFIX: u8 = 2;

/// Names one start of the machine; zeros where that cannot be known.
pub(super) type BootId = [u8; 16];

/// A change of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// The edge has started.
    Opened { boot: BootId, start: u64 },
    /// The edge has ended in order: everything before is on the disk.
    Closed,
    /// The next log goes on here.
    Continued,
    /// An event of control's has been applied.
    Event { number: u64, named: Vec<Named> },
    /// The edge has made a mark of its own.
    Local { number: u64, named: Vec<Named> },
    /// Events up to this one were not seen.
    Skipped { number: u64 },
    /// Another catalog begins.
    StartedOver { era: u64, number: u64, catalog_id: String },
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind()];
        match self {
            Self::Opened { boot, start } => {
                bytes.extend(boot);
                bytes.extend(start.to_le_bytes());
            }
            Self::Closed | Self::Continued => {}
            Self::Event { number, named } | Self::Local { number, named } => {
                bytes.extend(number.to_le_bytes());
                for Named { hash, soft, prefix_length } in named {
                    let flags = if *soft { SOFT } else { 0 } | if prefix_length.is_some() { PREFIX } else { 0 };
                    bytes.push(flags);
                    bytes.extend(hash.to_le_bytes());
                    bytes.extend(prefix_length.iter().flat_map(|length| length.to_le_bytes()));
                }
            }
            Self::Skipped { number } => bytes.extend(number.to_le_bytes()),
            Self::StartedOver { era, number, catalog_id } => {
                bytes.extend(era.to_le_bytes());
                bytes.extend(number.to_le_bytes());
                push_text(&mut bytes, catalog_id);
            }
        }
        bytes
    }

    /// Nothing: this program writes no such record.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let record = match fields.u8()? {
            1 => Self::Opened { boot: fields.array()?, start: fields.u64()? },
            2 => Self::Closed,
            3 => Self::Continued,
            4 => Self::Event { number: fields.u64()?, named: names(&mut fields)? },
            5 => Self::Local { number: fields.u64()?, named: names(&mut fields)? },
            6 => Self::Skipped { number: fields.u64()? },
            7 => Self::StartedOver { era: fields.u64()?, number: fields.u64()?, catalog_id: fields.text()? },
            _ => return None,
        };
        fields.is_empty().then_some(record)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Opened { .. } => 1,
            Self::Closed => 2,
            Self::Continued => 3,
            Self::Event { .. } => 4,
            Self::Local { .. } => 5,
            Self::Skipped { .. } => 6,
            Self::StartedOver { .. } => 7,
        }
    }
}

fn names(fields: &mut Fields<'_>) -> Option<Vec<Named>> {
    let mut named = Vec::new();
    while !fields.is_empty() {
        let flags = fields.u8().filter(|flags| *flags <= SOFT | PREFIX)?;
        let hash = fields.u64()?;
        let prefix_length = if flags & PREFIX == 0 { None } else { Some(fields.u32()?) };
        named.push(Named { hash, soft: flags & SOFT != 0, prefix_length });
    }
    Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_comes_back_and_no_part_of_one_does() {
        let named = vec![
            Named { hash: u64::MAX, soft: true, prefix_length: None },
            Named { hash: 7, soft: false, prefix_length: Some(0) },
            Named { hash: 8, soft: true, prefix_length: Some(8_000) },
        ];
        for record in [
            Record::Opened { boot: [3; 16], start: 9 },
            Record::Closed,
            Record::Continued,
            Record::Event { number: 1, named: named.clone() },
            Record::Local { number: u64::MAX, named },
            Record::Event { number: 2, named: Vec::new() },
            Record::Skipped { number: 4 },
            Record::StartedOver { era: 5, number: 6, catalog_id: "katalög".to_owned() },
        ] {
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes), Some(record.clone()));
            for end in 0..bytes.len() {
                let part = Record::decode(&bytes[..end]);
                // What ends with a whole name is another record with fewer of them; its frame has its checksum.
                assert!(
                    part.is_none() || matches!(part, Some(Record::Event { .. } | Record::Local { .. })),
                    "{part:?}"
                );
            }
            let longer = [bytes.as_slice(), &[0xff]].concat();
            assert_eq!(Record::decode(&longer), None, "{record:?}");
        }
        assert_eq!(Record::decode(&[0]), None);
        assert_eq!(Record::decode(&[8]), None);
    }
}
