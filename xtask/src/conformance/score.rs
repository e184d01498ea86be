//! The score of a run of http-cache-tests, by the rules of its own results page: a test has passed if its result is `true`
//! and all that it depends on, and what that depends on, has passed. Pure.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest chain of dependencies; the longest of the suite has 4 links. What is deeper has not passed.
const MAX_CHAIN: usize = 32;

/// What a test is about. The order is that of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// What the RFCs demand.
    Required,
    /// What makes a cache good.
    Optimal,
    /// What has no right answer.
    Check,
}

/// A test that applies to a shared cache, and how it went.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Test {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The title of the part of the suite that it belongs to.
    pub(crate) suite: String,
    pub(crate) kind: Kind,
    pub(crate) depends_on: Vec<String>,
    /// `true`, or a list of the class of the failure and its reason; `null` if it was not run.
    pub(crate) result: Value,
}

/// How a test counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) suite: String,
    pub(crate) kind: Kind,
    /// Why it has not passed; nothing if it has.
    pub(crate) failure: Option<String>,
}

/// How many have passed, and of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) of: usize,
}

/// How every test counts.
pub(crate) fn verdicts(tests: &[Test]) -> Vec<Verdict> {
    let by_id: HashMap<&str, &Test> = tests.iter().map(|test| (test.id.as_str(), test)).collect();
    let verdict = |test: &Test| Verdict {
        id: test.id.clone(),
        name: test.name.clone(),
        suite: test.suite.clone(),
        kind: test.kind,
        failure: failure(test, &by_id, MAX_CHAIN),
    };
    tests.iter().map(verdict).collect()
}

/// The score of each kind.
pub(crate) fn counts(verdicts: &[Verdict]) -> BTreeMap<Kind, Count> {
    let mut counts = BTreeMap::<Kind, Count>::new();
    for verdict in verdicts {
        let count = counts.entry(verdict.kind).or_default();
        count.of += 1;
        count.passed += usize::from(verdict.failure.is_none());
    }
    counts
}

/// Why a test has not passed. What it depends on comes first, as on the suite's page: the test itself means nothing then.
fn failure(test: &Test, by_id: &HashMap<&str, &Test>, depth: usize) -> Option<String> {
    if test.result.is_null() {
        return Some("not run".to_owned());
    }
    let fails = |id: &&String| {
        let dependency = by_id.get(id.as_str());
        depth == 0 || dependency.is_none_or(|test| failure(test, by_id, depth - 1).is_some())
    };
    if let Some(id) = test.depends_on.iter().find(fails) {
        return Some(format!("depends on {id}, which has not passed"));
    }
    if test.result == Value::Bool(true) {
        return None;
    }
    let part = |at: usize| test.result.get(at).and_then(Value::as_str).unwrap_or("unknown");
    Some(match (part(0), part(1)) {
        ("Assertion", reason) => reason.to_owned(),
        ("Setup", "retry") => "Setup: the cache sent a request twice".to_owned(),
        (class, reason) => format!("{class}: {reason}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn test(id: &str, kind: Kind, depends_on: &[&str], result: Value) -> Test {
        let depends_on = depends_on.iter().map(|&id| id.to_owned()).collect();
        Test { id: id.to_owned(), name: String::new(), suite: String::new(), kind, depends_on, result }
    }

    fn check(tests: &[Test], expected: &[(&str, Option<&str>)]) {
        let verdicts = verdicts(tests);
        let found: Vec<(&str, Option<&str>)> = verdicts.iter().map(|v| (v.id.as_str(), v.failure.as_deref())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_the_engine_says() {
        for (result, expected) in [
            (json!(true), None),
            (json!(["Assertion", "Response 2 comes from cache"]), Some("Response 2 comes from cache")),
            (json!(["Setup", "Response 1 status is 502, not 200"]), Some("Setup: Response 1 status is 502, not 200")),
            (json!(["Setup", "retry"]), Some("Setup: the cache sent a request twice")),
            (json!(["AbortError", "This operation was aborted"]), Some("AbortError: This operation was aborted")),
            (json!(["TypeError"]), Some("TypeError: unknown")),
            (json!(false), Some("unknown: unknown")),
            (json!(null), Some("not run")),
        ] {
            check(&[test("a", Kind::Required, &[], result)], &[("a", expected)]);
        }
    }

    #[test]
    fn what_a_test_depends_on_counts_transitively() {
        let tests = [
            test("c", Kind::Required, &["b"], json!(true)),
            test("b", Kind::Optimal, &["fine", "a"], json!(true)),
            test("a", Kind::Check, &[], json!(["Assertion", "no"])),
            test("fine", Kind::Check, &[], json!(true)),
            test("d", Kind::Required, &["fine"], json!(true)),
        ];
        check(
            &tests,
            &[
                ("c", Some("depends on b, which has not passed")),
                ("b", Some("depends on a, which has not passed")),
                ("a", Some("no")),
                ("fine", None),
                ("d", None),
            ],
        );
    }

    #[test]
    fn a_dependency_that_was_not_run_or_does_not_exist_has_not_passed() {
        let tests = [
            test("a", Kind::Required, &["nobody"], json!(true)),
            test("b", Kind::Required, &["c"], json!(true)),
            test("c", Kind::Required, &[], json!(null)),
            test("own", Kind::Required, &["own"], json!(true)),
        ];
        check(
            &tests,
            &[
                ("a", Some("depends on nobody, which has not passed")),
                ("b", Some("depends on c, which has not passed")),
                ("c", Some("not run")),
                ("own", Some("depends on own, which has not passed")),
            ],
        );
    }

    #[test]
    fn each_kind_has_its_own_count() {
        let tests = [
            test("a", Kind::Required, &[], json!(true)),
            test("b", Kind::Required, &["c"], json!(true)),
            test("c", Kind::Check, &[], json!(["Assertion", "no"])),
            test("d", Kind::Optimal, &[], json!(true)),
        ];
        let counts: Vec<(Kind, usize, usize)> =
            counts(&verdicts(&tests)).into_iter().map(|(kind, count)| (kind, count.passed, count.of)).collect();
        assert_eq!(counts, [(Kind::Required, 1, 2), (Kind::Optimal, 1, 1), (Kind::Check, 0, 1)]);
    }
}
