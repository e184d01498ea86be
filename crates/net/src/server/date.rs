//! The Date of responses, formatted once a second.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a date: `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;

/// The current date in the form of RFC 9110 section 5.6.7.
#[derive(Debug)]
pub(crate) struct DateText {
    second: u64,
    text: Vec<u8>,
}

impl DateText {
    pub(crate) fn new() -> Self {
        Self { second: u64::MAX, text: Vec::with_capacity(DATE_BYTES) }
    }

    /// The text for `now`.
    pub(crate) fn at(&mut self, now: SystemTime) -> &[u8] {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second {
            self.second = second;
            self.text.clear();
            // Writing to a vector cannot fail.
            let _ = write!(self.text, "{}", httpdate::HttpDate::from(now));
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn follows_the_clock() {
        let mut date = DateText::new();
        let at = |second: u64| UNIX_EPOCH + Duration::from_secs(second);
        assert_eq!(date.at(at(784_111_777)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(at(784_111_777)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(at(784_111_778)), b"Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
