//! `If-Match` and `If-None-Match` (RFC 9110 § 13.1.1, § 13.1.2) against the digest of what is there now. Pure.
//!
//! The entity tag of a file is its digest, strong. `If-Match` is evaluated first (§ 13.2.2), and compares strongly, so a
//! weak tag never matches it; `If-None-Match` compares weakly.

use api::Digest;
use api::node::Conditions;

use crate::CatalogError;

/// Whether `conditions` hold for a file with the digest `current` (none: there is no file).
///
/// # Errors
/// `PreconditionFailed`, or `Invalid` for a field that is not `*` or a list of entity tags.
pub(crate) fn check(conditions: &Conditions, current: Option<&Digest>) -> Result<(), CatalogError> {
    let is =
        current.map_or_else(|| "there is no file".to_owned(), |digest| format!("its entity tag is {}", digest.etag()));
    if let Some(value) = &conditions.if_match
        && !matches(&parse("If-Match", value)?, current, true)
    {
        return Err(CatalogError::PreconditionFailed(format!("If-Match does not hold: {is}")));
    }
    if let Some(value) = &conditions.if_none_match
        && matches(&parse("If-None-Match", value)?, current, false)
    {
        return Err(CatalogError::PreconditionFailed(format!("If-None-Match does not hold: {is}")));
    }
    Ok(())
}

enum Tags<'a> {
    Any,
    /// Each with whether it is weak, without its quotes.
    List(Vec<(bool, &'a str)>),
}

fn matches(tags: &Tags<'_>, current: Option<&Digest>, strongly: bool) -> bool {
    let Some(current) = current else { return false };
    match tags {
        Tags::Any => true,
        Tags::List(list) => {
            let current = current.to_string();
            list.iter().any(|(weak, tag)| !(strongly && *weak) && *tag == current)
        }
    }
}

/// `*`, or entity tags between commas (RFC 9110 § 8.8.3; empty elements are allowed, § 5.6.1.2).
fn parse<'a>(field: &str, value: &'a str) -> Result<Tags<'a>, CatalogError> {
    if value.trim() == "*" {
        return Ok(Tags::Any);
    }
    let mut list = Vec::new();
    let mut rest = value.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
        let split = quoted.strip_prefix('"').and_then(|open| open.split_once('"'));
        let Some((tag, after)) = split else {
            return Err(invalid(field));
        };
        list.push((weak, tag));
        let after = after.trim_start_matches([' ', '\t']);
        if !after.is_empty() && !after.starts_with(',') {
            return Err(invalid(field));
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Ok(Tags::List(list))
}

fn invalid(field: &str) -> CatalogError {
    CatalogError::Invalid(format!("{field} is neither * nor a list of entity tags in double quotes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let now = Digest::of(b"now");
        let (a, b) = (now.etag(), Digest::of(b"old").etag());
        let both = format!("{b} ,, {a}");
        let weak = format!("W/{a}");
        // The field value; whether If-Match and If-None-Match hold when there is a file, and when there is none.
        let cases: &[(&str, [bool; 4])] = &[
            ("*", [true, false, false, true]),
            (" * ", [true, false, false, true]),
            (&a, [true, false, false, true]),
            (&b, [false, true, false, true]),
            (&both, [true, false, false, true]),
            (&weak, [false, false, false, true]),
            ("", [false, true, false, true]),
            (" , ", [false, true, false, true]),
            ("\"\"", [false, true, false, true]),
        ];
        for (value, expected) in cases {
            let value = Some((*value).to_owned());
            let if_match = Conditions { if_match: value.clone(), if_none_match: None };
            let if_none_match = Conditions { if_match: None, if_none_match: value };
            let holds = [
                check(&if_match, Some(&now)).is_ok(),
                check(&if_none_match, Some(&now)).is_ok(),
                check(&if_match, None).is_ok(),
                check(&if_none_match, None).is_ok(),
            ];
            assert_eq!(holds, *expected, "{if_match:?}");
        }
        for bad in ["abc", "\"abc", "*,\"a\"", "\"a\" \"b\"", "w/\"a\"", "\"a\"x", "'a'"] {
            let conditions = Conditions { if_match: Some(bad.to_owned()), if_none_match: None };
            let error = check(&conditions, Some(&now)).expect_err(bad);
            assert!(matches!(error, CatalogError::Invalid(_)), "{bad}: {error}");
        }
        assert!(check(&Conditions::default(), None).is_ok());
        let both = Conditions { if_match: Some(a.clone()), if_none_match: Some(b) };
        assert!(check(&both, Some(&now)).is_ok());
        let contradiction = Conditions { if_match: Some(a.clone()), if_none_match: Some(a) };
        assert!(check(&contradiction, Some(&now)).is_err());
    }
}
