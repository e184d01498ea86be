//! The scenario files about HTTP caching, one test for each topic. What stands in them: `testbed::scenario`.

use std::collections::BTreeSet;

/// A test for each topic, and the list of them.
macro_rules! topics {
    ($($test:ident: $folder:literal,)*) => {
        const TOPICS: &[&str] = &[$($folder),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                testbed::scenario::topic($folder).await;
            }
        )*
    };
}

topics! {
    authorization: "authorization",
    bypass: "bypass",
    collapsing: "collapsing",
    freshness: "freshness",
    head: "head",
    hit_for_miss: "hit-for-miss",
    hop_by_hop: "hop-by-hop",
    informational: "informational",
    invalidation: "invalidation",
    key: "key",
    negative: "negative",
    policy: "policy",
    purge: "purge",
    ranges: "ranges",
    safety: "safety",
    set_cookie: "set-cookie",
    stale: "stale",
    storing: "storing",
    tags: "tags",
    targeted: "targeted",
    validation: "validation",
    vary: "vary",
}

#[test]
fn every_topic_is_a_test() {
    let folders: BTreeSet<String> = testbed::scenario::topics().into_iter().collect();
    assert_eq!(folders, TOPICS.iter().map(|&topic| topic.to_owned()).collect());
}

#[tokio::test]
async fn a_scenario_that_does_not_hold_says_where() {
    let text = "[[origin]]\nbody = \"one\"\n[[step]]\nrequest = \"GET /\"\nstatus = 201\n";
    let why = testbed::scenario::run(text).await.expect_err("200 is not 201");
    assert!(why.starts_with("step 1 (GET /): status: expected 201, got 200"), "{why}");
    let why = testbed::scenario::run("[[step]]\nrequets = \"GET /\"\n").await.expect_err("no such member");
    assert!(why.contains("unknown field `requets`"), "{why}");
}
