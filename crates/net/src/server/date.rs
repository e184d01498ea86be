//! The Date of responses, formatted once a second.

use std::cell::RefCell;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

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

/// The current date as the value of a field; one for all responses of a thread in a second.
pub(crate) fn now() -> HeaderValue {
    thread_local! {
        static NOW: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    NOW.with_borrow_mut(|(known, value)| {
        if *known != second
            && let Ok(text) = HeaderValue::from_str(&httpdate::fmt_http_date(now))
        {
            (*known, *value) = (second, text);
        }
        value.clone()
    })
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
