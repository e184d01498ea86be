//! Dates as HTTP writes them (RFC 9110 § 5.6.7), as whole seconds since the Unix epoch.

use std::time::{Duration, UNIX_EPOCH};

/// The last second that HTTP's four-digit year can write: 9999-12-31T23:59:59Z.
const LATEST_S: u64 = 253_402_300_799;

/// `Sun, 06 Nov 1994 08:49:37 GMT`. A second beyond the year 9999 is written as the last one of that year.
pub fn format(second: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second.min(LATEST_S)))
}

/// The second that `text` names, in any of the three forms; nothing when it is no date, or one before 1970.
pub fn parse(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text.trim()).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(parse(text), Some(784_111_777), "{text}");
        }
        for bad in ["", "0", "-1", "yesterday", "Sun, 06 Nov 1994 08:49:37 UTC"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_writable_second_comes_back(second in 0..=LATEST_S) {
            proptest::prop_assert_eq!(parse(&format(second)), Some(second));
        }
    }
}
