//! The two tables that fields are looked up in: the static one, and that of what a connection has brought (RFC 7541 sections
//! 2.3 and 4, appendix A).

use std::collections::VecDeque;
use std::sync::LazyLock;

use super::block::{self, Kind};
use super::{HpackError, TABLE_BYTES};

/// What an entry counts beyond its bytes (RFC 7541 section 4.1, RFC 9113 section 6.5.2).
pub(crate) const ENTRY_BYTES: usize = 32;

/// RFC 7541 appendix A; the first has the index 1.
pub(crate) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The same of what is known of each.
static KINDS: LazyLock<[Kind; STATIC.len()]> =
    LazyLock::new(|| STATIC.map(|(name, value)| block::kind(name.as_bytes(), value.as_bytes())));

/// Both tables, as one side's fields see them.
#[derive(Debug)]
pub(crate) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// What `bytes` may be.
    max: usize,
}

#[derive(Debug)]
struct Entry {
    /// Name and value.
    text: Box<[u8]>,
    name: usize,
    kind: Kind,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, max: TABLE_BYTES }
    }
}

impl Table {
    /// Name, value, and what is known of both.
    ///
    /// # Errors
    /// [`HpackError::Index`].
    pub(crate) fn get(&self, index: usize) -> Result<(&[u8], &[u8], Kind), HpackError> {
        let place = index.checked_sub(1).ok_or(HpackError::Index(index))?;
        if let (Some((name, value)), Some(kind)) = (STATIC.get(place), KINDS.get(place)) {
            return Ok((name.as_bytes(), value.as_bytes(), *kind));
        }
        let entry = self.entries.get(place - STATIC.len()).ok_or(HpackError::Index(index))?;
        let (name, value) = entry.text.split_at_checked(entry.name).unwrap_or_default();
        Ok((name, value, entry.kind))
    }

    /// Puts a field in front of the others, of which the oldest leave as there is need. One that is larger than the table leaves
    /// it empty, and is no mistake (section 4.4).
    pub(crate) fn insert(&mut self, name: &[u8], value: &[u8], kind: Kind) {
        let bytes = name.len() + value.len() + ENTRY_BYTES;
        self.shrink(self.max.saturating_sub(bytes));
        if bytes <= self.max {
            self.bytes += bytes;
            self.entries.push_front(Entry { text: [name, value].concat().into(), name: name.len(), kind });
        }
    }

    /// Changes how large the table may be.
    ///
    /// # Errors
    /// [`HpackError::TableSize`].
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), HpackError> {
        if bytes > TABLE_BYTES {
            return Err(HpackError::TableSize(bytes));
        }
        self.max = bytes;
        self.shrink(bytes);
        Ok(())
    }

    fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes
            && let Some(oldest) = self.entries.pop_back()
        {
            self.bytes -= oldest.text.len() + ENTRY_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(table: &Table, index: usize) -> Option<String> {
        let (_, value, _) = table.get(index).ok()?;
        Some(String::from_utf8(value.to_vec()).expect("text"))
    }

    #[test]
    fn static_entries() {
        let table = Table::default();
        assert_eq!(table.get(0), Err(HpackError::Index(0)));
        assert_eq!(table.get(2), Ok((&b":method"[..], &b"GET"[..], Kind::Method)));
        assert_eq!(table.get(16), Ok((&b"accept-encoding"[..], &b"gzip, deflate"[..], Kind::Plain)));
        assert_eq!(table.get(61).map(|(name, ..)| name), Ok(&b"www-authenticate"[..]));
        assert_eq!(table.get(62), Err(HpackError::Index(62)));
    }

    #[test]
    fn the_oldest_leave() {
        let mut table = Table::default();
        for value in [b"1", b"2", b"3"] {
            table.insert(b"x", value, Kind::Other);
        }
        assert_eq!((value(&table, 62).as_deref(), value(&table, 64).as_deref()), (Some("3"), Some("1")));
        // 34 bytes each.
        table.resize(68).expect("allowed");
        assert_eq!((value(&table, 63).as_deref(), value(&table, 64)), (Some("2"), None));
        table.insert(b"x", b"4", Kind::Other);
        assert_eq!((value(&table, 62).as_deref(), value(&table, 63).as_deref()), (Some("4"), Some("3")));
        table.insert(b"x", &[b'y'; 40], Kind::Other);
        assert_eq!(table.bytes, 0, "larger than the table");
        table.resize(0).expect("allowed");
        table.insert(b"", b"", Kind::Other);
        assert!(table.entries.is_empty());
        assert_eq!(table.resize(TABLE_BYTES + 1), Err(HpackError::TableSize(TABLE_BYTES + 1)));
        table.resize(TABLE_BYTES).expect("allowed");
        for _ in 0..1_000 {
            table.insert(b"x", b"1", Kind::Other);
            assert!(table.bytes <= TABLE_BYTES);
        }
        assert_eq!(table.entries.len(), TABLE_BYTES / 34);
    }
}
