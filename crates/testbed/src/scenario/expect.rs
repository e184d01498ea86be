//! What stands in scenario files about headers, and dates in it. Pure.

use std::time::{Duration, SystemTime};

/// The header fields of a message, in order, as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(pub(super) Vec<(String, String)>);

impl Fields {
    /// All values of a name, joined; nothing if it is not there.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let lines = self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let values: Vec<&str> = lines.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// What is wrong about one expectation (the five forms in [`super`]).
pub(super) fn mismatch(expectation: &str, fields: &Fields) -> Option<String> {
    let found = |name: &str| fields.get(name).map_or_else(|| "no such field".to_owned(), |value| format!("{value:?}"));
    let wrong = |name: &str| Some(format!("expected «{expectation}», got {}", found(name)));
    if let Some(name) = expectation.strip_prefix('!') {
        return fields.get(name).and_then(|_| wrong(name));
    }
    if let Some((name, text)) = expectation.split_once(" !~ ") {
        return if fields.get(name).is_some_and(|value| value.contains(text)) { wrong(name) } else { None };
    }
    if let Some((name, text)) = expectation.split_once(" ~ ") {
        return if fields.get(name).is_some_and(|value| value.contains(text)) { None } else { wrong(name) };
    }
    if let Some((name, value)) = expectation.split_once(':') {
        return if fields.get(name).as_deref() == Some(value.trim()) { None } else { wrong(name) };
    }
    if fields.get(expectation).is_some() { None } else { wrong(expectation) }
}

/// `text` with `{now}`, `{now+N}` and `{now-N}` as dates; `now_ms` is the clock.
pub(super) fn with_dates(text: &str, now_ms: u64) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{now") {
        let (offset, after) = after.split_once('}').expect("{now…} ends with a brace");
        let offset_s: i64 = if offset.is_empty() { 0 } else { offset.parse().expect("{now+SECONDS}") };
        let at_s = (now_ms / 1_000).checked_add_signed(offset_s).expect("a date after 1970");
        done.push_str(before);
        done.push_str(&httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at_s)));
        rest = after;
    }
    done + rest
}

/// `text` with `{saw Name}` as the value of that field in `seen`.
pub(super) fn with_seen(text: &str, seen: &Fields) -> String {
    let Some((before, rest)) = text.split_once("{saw ") else { return text.to_owned() };
    let (name, after) = rest.split_once('}').expect("{saw Name} ends with a brace");
    format!("{before}{}{after}", seen.get(name).unwrap_or_default())
}

/// `Name: value` as a field.
pub(super) fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no header; write Name: value"));
    (name.to_owned(), value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations() {
        let fields = Fields(vec![field("Vary: A"), field("vary: B"), field("Age: 10"), field("Empty:")]);
        for (expectation, holds) in [
            ("Vary: A, B", true),
            ("VARY: A, B", true),
            ("Vary: A", false),
            ("Vary ~ B", true),
            ("Vary ~ C", false),
            ("Age", true),
            ("Empty", true),
            ("Empty: ", true),
            ("Vary !~ B", false),
            ("Vary !~ C", true),
            ("Nothing !~ x", true),
            ("Nothing", false),
            ("!Nothing", true),
            ("!Age", false),
            ("Nothing ~ x", false),
        ] {
            assert_eq!(mismatch(expectation, &fields).is_none(), holds, "{expectation}");
        }
        assert_eq!(mismatch("Age: 1", &fields).unwrap(), "expected «Age: 1», got \"10\"");
    }

    #[test]
    fn what_the_origin_saw() {
        let seen = Fields(vec![field("Via: 1.1 a"), field("Via: 1.1 b")]);
        assert_eq!(with_seen("Via: x, {saw via}; y", &seen), "Via: x, 1.1 a, 1.1 b; y");
        assert_eq!(with_seen("Via: {saw Age}", &seen), "Via: ");
        assert_eq!(with_seen("Via: saw", &seen), "Via: saw");
    }

    #[test]
    fn dates() {
        assert_eq!(with_dates("Expires: {now+60}!", 0), "Expires: Thu, 01 Jan 1970 00:01:00 GMT!");
        assert_eq!(with_dates("{now} {now-1}", 1_999), "Thu, 01 Jan 1970 00:00:01 GMT Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(with_dates("plain {x}", 0), "plain {x}");
    }
}
