//! Frames of HTTP/2 (RFC 9113 sections 4 and 6), pure: heads, what stands in their payloads, and how ours are written.

/// Bytes of the head of a frame.
pub(crate) const HEAD_BYTES: usize = 9;
/// Bytes of a payload, in both directions: what everybody takes (section 4.2). We ask for no more, and send no more.
pub(crate) const PAYLOAD_BYTES: usize = 16_384;
/// What a window is never opened beyond (section 6.9.1).
pub(crate) const WINDOW_MAX: i64 = (1 << 31) - 1;

/// Kinds of frames (section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames (section 6).
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Why a stream or a connection ends (section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Reason {
    NoError = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    Refused = 7,
    Cancel = 8,
    Compression = 9,
    Calm = 11,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of the payload.
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    /// The head at the beginning of `bytes`; nothing: there are not enough of them yet.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let &[high, middle, low, kind, flags, a, b, c, d] = bytes.first_chunk::<HEAD_BYTES>()?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        // The highest bit of the stream means nothing (section 4.1).
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([a & 0x7f, b, c, d]) })
    }

    /// As it is sent.
    pub(crate) fn bytes(self) -> [u8; HEAD_BYTES] {
        let [_, high, middle, low] = u32::try_from(self.length).unwrap_or(0).to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [high, middle, low, self.kind, self.flags, a, b, c, d]
    }

    /// Whether a flag is set.
    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The payload of a DATA or HEADERS frame without what pads it (section 6.1). Nothing: it is padded with more than it has.
pub(crate) fn unpadded(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

/// The fragment of a block in the payload of a HEADERS frame, without padding and priority (section 6.2).
pub(crate) fn fragment(head: Head, payload: &[u8]) -> Option<&[u8]> {
    let payload = unpadded(head, payload)?;
    if head.has(flag::PRIORITY) { payload.get(5..) } else { Some(payload) }
}

/// The number that is all of a payload: why a stream is reset, or by how much a window opens.
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.try_into().ok()?))
}

/// What we have to know of a client's settings (section 6.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    pub(crate) table_bytes: Option<u32>,
    pub(crate) window: Option<u32>,
}

impl Settings {
    /// Reads the payload of a SETTINGS frame.
    ///
    /// # Errors
    /// What the connection ends with.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, Reason> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Reason::FrameSize);
        }
        let mut read = Self::default();
        for &[high, low, a, b, c, d] in settings {
            let value = u32::from_be_bytes([a, b, c, d]);
            match u16::from_be_bytes([high, low]) {
                1 => read.table_bytes = Some(read.table_bytes.map_or(value, |least| least.min(value))),
                2 if value > 1 => return Err(Reason::Protocol),
                4 if i64::from(value) > WINDOW_MAX => return Err(Reason::FlowControl),
                4 => read.window = Some(value),
                5 if !(16_384..=16_777_215).contains(&value) => return Err(Reason::Protocol),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// What a connection begins with: our settings, and how far its window opens beyond what everybody has (65,535).
pub(crate) fn write_settings(out: &mut Vec<u8>, streams: u32, window: u32, list_bytes: u32, connection_window: u32) {
    let settings = [(3_u16, streams), (4, window), (6, list_bytes)];
    let head = Head { length: 6 * settings.len(), kind: kind::SETTINGS, flags: 0, stream: 0 };
    out.extend_from_slice(&head.bytes());
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    write_window(out, 0, connection_window.saturating_sub(65_535));
}

/// Says that settings are taken.
pub(crate) fn write_settings_taken(out: &mut Vec<u8>) {
    out.extend_from_slice(&Head { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 }.bytes());
}

/// Asks for, or gives, a sign of life.
pub(crate) fn write_ping(out: &mut Vec<u8>, payload: [u8; 8], flags: u8) {
    out.extend_from_slice(&Head { length: 8, kind: kind::PING, flags, stream: 0 }.bytes());
    out.extend_from_slice(&payload);
}

/// Opens a window.
pub(crate) fn write_window(out: &mut Vec<u8>, stream: u32, by: u32) {
    out.extend_from_slice(&Head { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream }.bytes());
    out.extend_from_slice(&by.to_be_bytes());
}

/// Ends a stream.
pub(crate) fn write_reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    out.extend_from_slice(&Head { length: 4, kind: kind::RST_STREAM, flags: 0, stream }.bytes());
    out.extend_from_slice(&(reason as u32).to_be_bytes());
}

/// Ends the connection, or says that it will end; streams up to `last` are answered.
pub(crate) fn write_goaway(out: &mut Vec<u8>, last: u32, reason: Reason) {
    out.extend_from_slice(&Head { length: 8, kind: kind::GOAWAY, flags: 0, stream: 0 }.bytes());
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(reason as u32).to_be_bytes());
}

/// Sends a piece of a body, in frames of at most [`PAYLOAD_BYTES`].
pub(crate) fn write_data(out: &mut Vec<u8>, stream: u32, mut data: &[u8], ends: bool) {
    loop {
        let (piece, rest) = data.split_at_checked(PAYLOAD_BYTES).unwrap_or((data, &[]));
        let flags = if ends && rest.is_empty() { flag::END_STREAM } else { 0 };
        out.extend_from_slice(&Head { length: piece.len(), kind: kind::DATA, flags, stream }.bytes());
        out.extend_from_slice(piece);
        if rest.is_empty() {
            return;
        }
        data = rest;
    }
}

/// Puts the heads of frames to a block of fields that stands at the end of `out`, behind room for one head ([`HEAD_BYTES`]) from
/// `start` on.
pub(crate) fn seal_fields(out: &mut Vec<u8>, start: usize, stream: u32, ends: bool) {
    let from = start + HEAD_BYTES;
    // Nearly never, and then it is copied.
    let rest = if out.len() > from + PAYLOAD_BYTES { out.split_off(from + PAYLOAD_BYTES) } else { Vec::new() };
    let mut pieces = rest.chunks(PAYLOAD_BYTES).peekable();
    let ended = |more: bool| if more { 0 } else { flag::END_HEADERS };
    let flags = ended(pieces.peek().is_some()) | if ends { flag::END_STREAM } else { 0 };
    let head = Head { length: out.len().saturating_sub(from), kind: kind::HEADERS, flags, stream };
    if let Some(room) = out.get_mut(start..from) {
        room.copy_from_slice(&head.bytes());
    }
    while let Some(piece) = pieces.next() {
        let flags = ended(pieces.peek().is_some());
        out.extend_from_slice(&Head { length: piece.len(), kind: kind::CONTINUATION, flags, stream }.bytes());
        out.extend_from_slice(piece);
    }
}

/// Opens a window of what we may send.
///
/// # Errors
/// Nothing changes where it would be open too far.
pub(crate) fn open(window: &mut i64, by: i64) -> Result<(), Reason> {
    let opened = *window + by;
    if opened > WINDOW_MAX {
        return Err(Reason::FlowControl);
    }
    *window = opened;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head = Head { length: 0x01_0203, kind: kind::HEADERS, flags: flag::END_HEADERS, stream: 0x7fff_fffe };
        let mut bytes = head.bytes();
        assert_eq!(bytes, [1, 2, 3, 1, 4, 0x7f, 0xff, 0xff, 0xfe]);
        assert_eq!(Head::read(&bytes), Some(head));
        bytes[5] |= 0x80;
        assert_eq!(Head::read(&bytes), Some(head), "the highest bit is reserved");
        assert_eq!(Head::read(&bytes[..8]), None);
    }

    #[test]
    fn padding_and_priority() {
        let head = |flags| Head { length: 0, kind: 0, flags, stream: 1 };
        for (flags, payload, expected) in [
            (0, &b"abc"[..], Some(&b"abc"[..])),
            (flag::PADDED, b"\x02abxx", Some(b"ab")),
            (flag::PADDED, b"\x00", Some(b"")),
            (flag::PADDED, b"\x03ab", None),
            (flag::PADDED, b"", None),
            (flag::PRIORITY, b"\0\0\0\x01\x10ab", Some(b"ab")),
            (flag::PRIORITY, b"\0\0\0\x01", None),
            (flag::PRIORITY | flag::PADDED, b"\x01\0\0\0\x01\x10abx", Some(b"ab")),
            (flag::PRIORITY | flag::PADDED, b"\x04\0\0\0\x01\x10abx", None),
        ] {
            assert_eq!(fragment(head(flags), payload), expected, "{flags} {payload:?}");
        }
    }

    #[test]
    fn settings() {
        let setting = |name: u8, value: u32| [&[0, name][..], &value.to_be_bytes()].concat();
        for (payload, expected) in [
            (vec![], Ok(Settings::default())),
            (vec![0; 5], Err(Reason::FrameSize)),
            (setting(2, 1), Ok(Settings::default())),
            (setting(2, 2), Err(Reason::Protocol)),
            (setting(4, 0x7fff_ffff), Ok(Settings { window: Some(0x7fff_ffff), table_bytes: None })),
            (setting(4, 0x8000_0000), Err(Reason::FlowControl)),
            (setting(5, 16_384), Ok(Settings::default())),
            (setting(5, 16_383), Err(Reason::Protocol)),
            (setting(5, 16_777_215), Ok(Settings::default())),
            (setting(5, 16_777_216), Err(Reason::Protocol)),
            (setting(99, 1), Ok(Settings::default())),
            (
                [setting(1, 0), setting(1, 9), setting(4, 1), setting(4, 2)].concat(),
                Ok(Settings { table_bytes: Some(0), window: Some(2) }),
            ),
        ] {
            assert_eq!(Settings::read(&payload), expected, "{payload:?}");
        }
    }

    /// Kind, flags and length of each frame.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, usize)> {
        let mut frames = Vec::new();
        while let Some(head) = Head::read(bytes) {
            frames.push((head.kind, head.flags, head.length));
            bytes = &bytes[HEAD_BYTES + head.length..];
        }
        frames
    }

    #[test]
    fn bodies_and_blocks_are_cut() {
        for (length, expected) in [
            (0, vec![(0, 1, 0)]),
            (PAYLOAD_BYTES, vec![(0, 1, PAYLOAD_BYTES)]),
            (PAYLOAD_BYTES + 1, vec![(0, 0, PAYLOAD_BYTES), (0, 1, 1)]),
        ] {
            let mut out = Vec::new();
            write_data(&mut out, 1, &vec![b'x'; length], true);
            assert_eq!(frames(&out), expected, "{length}");
        }
        for (length, expected) in [
            (5, vec![(1, 5, 5)]),
            (PAYLOAD_BYTES, vec![(1, 5, PAYLOAD_BYTES)]),
            (2 * PAYLOAD_BYTES + 1, vec![(1, 1, PAYLOAD_BYTES), (9, 0, PAYLOAD_BYTES), (9, 4, 1)]),
        ] {
            let mut out = b"before".to_vec();
            out.resize(6 + HEAD_BYTES + length, b'x');
            seal_fields(&mut out, 6, 1, true);
            assert_eq!(frames(&out[6..]), expected, "{length}");
        }
    }

    #[test]
    fn windows_open_up_to_their_end() {
        let mut window = -5;
        assert_eq!((open(&mut window, WINDOW_MAX), window), (Ok(()), WINDOW_MAX - 5));
        assert_eq!((open(&mut window, 5), window), (Ok(()), WINDOW_MAX));
        assert_eq!((open(&mut window, 1), window), (Err(Reason::FlowControl), WINDOW_MAX));
    }
}
