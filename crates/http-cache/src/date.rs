//! Dates as HTTP writes them (RFC 9110 § 5.6.7), as whole seconds since the Unix epoch.
//!
//! Read strictly by shape and leniently by letter case and weekday: a date in another shape (another zone, a one-digit hour,
//! doubled spaces) is none, because a guess could keep something longer than was meant. A weekday that does not fit its date
//! changes nothing about which second is meant.

use std::time::{Duration, UNIX_EPOCH};

/// The last second that HTTP's four-digit year can write: 9999-12-31T23:59:59Z.
const LATEST_S: u64 = 253_402_300_799;
const DAY_S: i64 = 86_400;
/// How far in the future a year of two digits may lie, in years (RFC 9110 § 5.6.7).
const TWO_DIGIT_YEARS_AHEAD: i64 = 50;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// `Sun, 06 Nov 1994 08:49:37 GMT`. A second beyond the year 9999 is written as the last one of that year.
pub fn format(second: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second.min(LATEST_S)))
}

/// The second that `text` names, in any of the three forms; nothing when it is no date. A date before 1970 counts as the
/// epoch. `now_s` decides the century of a year of two digits.
pub fn parse(text: &str, now_s: u64) -> Option<u64> {
    let text = text.trim_matches([' ', '\t']);
    let (weekday, rest) = text.split_at_checked(text.find(|c: char| !c.is_ascii_alphabetic())?)?;
    let short = WEEKDAYS.iter().any(|name| name.get(..3).is_some_and(|name| name.eq_ignore_ascii_case(weekday)));
    let long = WEEKDAYS.iter().any(|name| name.eq_ignore_ascii_case(weekday));
    let seconds = match rest.strip_prefix(", ") {
        Some(rest) if short => imf(rest),
        Some(rest) if long => rfc850(rest, now_s),
        None if short => asctime(rest.strip_prefix(' ')?),
        _ => None,
    }?;
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// `06 Nov 1994 08:49:37 GMT`
fn imf(text: &str) -> Option<i64> {
    let mut words = text.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let time = time(words.next()?)?;
    gmt(words.next()?, words.next())?;
    Some(days(number(year, 4)?, self::month(month)?, number(day, 2)?)? * DAY_S + time)
}

/// `06-Nov-94 08:49:37 GMT`
fn rfc850(text: &str, now_s: u64) -> Option<i64> {
    let mut words = text.split(' ');
    let mut date = words.next()?.split('-');
    let (day, month, year) = (number(date.next()?, 2)?, month(date.next()?)?, number(date.next()?, 2)?);
    let time = time(words.next()?)?;
    gmt(words.next()?, words.next())?;
    if date.next().is_some() {
        return None;
    }
    let now = year_of(now_s);
    let mut year = now - now % 100 + year;
    // The nearest century first; one that is too far ahead means the most recent year with these digits.
    if year <= now - (100 - TWO_DIGIT_YEARS_AHEAD) {
        year += 100;
    }
    let at = |year| Some(days(year, month, day)? * DAY_S + time);
    match at(year) {
        Some(second) if year > now + TWO_DIGIT_YEARS_AHEAD || second > i64::try_from(ahead(now_s)).ok()? => {
            at(year - 100)
        }
        second => second,
    }
}

/// The second that lies [`TWO_DIGIT_YEARS_AHEAD`] years after `now_s`, near enough.
fn ahead(now_s: u64) -> u64 {
    now_s
        .saturating_add((TWO_DIGIT_YEARS_AHEAD * 365 + TWO_DIGIT_YEARS_AHEAD / 4).unsigned_abs() * DAY_S.unsigned_abs())
}

/// `Nov  6 08:49:37 1994`
fn asctime(text: &str) -> Option<i64> {
    let (month, rest) = text.split_once(' ')?;
    let (day, rest) = rest.split_at_checked(2)?;
    let day = match day.strip_prefix(' ') {
        Some(digit) => number(digit, 1)?,
        None => number(day, 2)?,
    };
    let (clock, year) = rest.strip_prefix(' ')?.split_once(' ')?;
    Some(days(number(year, 4)?, self::month(month)?, day)? * DAY_S + time(clock)?)
}

fn gmt(zone: &str, more: Option<&str>) -> Option<()> {
    (zone.eq_ignore_ascii_case("GMT") && more.is_none()).then_some(())
}

/// A number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn month(text: &str) -> Option<i64> {
    let at = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(text))?;
    i64::try_from(at + 1).ok()
}

/// `08:49:37`, as seconds; 60 is a leap second.
fn time(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    (hour < 24 && minute < 60 && second <= 60 && parts.next().is_none()).then_some(hour * 3_600 + minute * 60 + second)
}

/// Days since the epoch in the Gregorian calendar, for a day that exists.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day < 1 || day > length {
        return None;
    }
    // Years that begin in March have their leap day last; 400 of them have 146,097 days.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

/// The year of a second, by the average length of one: exact but for the hours around New Year.
fn year_of(second: u64) -> i64 {
    1_970 + i64::try_from(second / 31_556_952).unwrap_or(8_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T00:00:00Z
    const NOW_S: u64 = 1_795_219_200;

    #[test]
    fn known_dates() {
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
            "SUN, 06 NOV 1994 08:49:37 gmt",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "MONDAY, 06-nov-94 08:49:37 GMT",
        ] {
            assert_eq!(parse(text, NOW_S), Some(784_111_777), "{text}");
        }
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 GMT", NOW_S), Some(0));
        assert_eq!(parse("Wed, 31 Dec 1969 23:59:59 GMT", NOW_S), Some(0));
        assert_eq!(parse("Sat, 29 Feb 2020 23:59:60 GMT", NOW_S), Some(1_583_020_800));
        for bad in [
            "",
            "0",
            "-1",
            "foo",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 2023 08:49:37 GMT",
            "Sun, 06 Nix 1994 08:49:37 GMT",
            "Xun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-94-1 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 94",
            "Sun, 06 Nov 1994 08:49:37 GMT\u{a0}",
        ] {
            assert_eq!(parse(bad, NOW_S), None, "{bad}");
        }
    }

    #[test]
    fn two_digits_of_a_year_are_at_most_50_years_ahead() {
        for (text, meant) in [
            ("Thursday, 18-Aug-50 02:01:18 GMT", "Thu, 18 Aug 2050 02:01:18 GMT"),
            ("Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("Sunday, 01-Nov-76 00:00:00 GMT", "Sun, 01 Nov 2076 00:00:00 GMT"),
            ("Sunday, 01-Dec-76 00:00:00 GMT", "Wed, 01 Dec 1976 00:00:00 GMT"),
            ("Sunday, 01-Jan-77 00:00:00 GMT", "Sat, 01 Jan 1977 00:00:00 GMT"),
            ("Sunday, 01-Jan-26 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("Sunday, 01-Jan-00 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:00 GMT"),
        ] {
            assert_eq!(parse(text, NOW_S).map(format).as_deref(), Some(meant), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "([A-Za-z]{0,9},? ?)?.{0,40}", now_s in 0..LATEST_S) {
            let _ = parse(&text, now_s);
        }

        #[test]
        fn every_writable_second_comes_back(second in 0..=LATEST_S) {
            proptest::prop_assert_eq!(parse(&format(second), NOW_S), Some(second));
        }
    }
}
