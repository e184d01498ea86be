//! Mode redirect: who is chosen, and the URL that the client is sent to.

use http::Method;
use router::Mode;

use crate::fakes::{BERLIN, Control, Holding, LISBON, Running, TOKYO, node};

const ID: &str = "019a9f3e-0000-7000-8000-000000000000";

async fn cluster() -> (Control, Running) {
    let nodes = vec![
        node("lisbon", LISBON, "http://lisbon.test:1"),
        node("berlin", BERLIN, "http://berlin.test:1"),
        node("tokyo", TOKYO, "http://tokyo.test:1"),
    ];
    let control = Control::start(nodes, "http://origin.test:1").await;
    let running = Running::start(Mode::Redirect, &control.url, None).await;
    (control, running)
}

#[tokio::test]
async fn clients_are_sent_to_the_nearest_edge() {
    let (_control, router) = cluster().await;
    for (path, headers, expected) in [
        ("/a/b.png", vec![], "http://lisbon.test:1/a/b.png"),
        ("/a%20b?lat=50&lng=10&v=1", vec![], "http://berlin.test:1/a%20b?v=1"),
        ("/a", vec![("x-place", "35,135")], "http://tokyo.test:1/a"),
        ("/a?lat=50&lng=10", vec![("x-place", "35,135")], "http://berlin.test:1/a"),
        ("/docs/", vec![], "http://lisbon.test:1/docs/"),
        ("/a", vec![("host", "IMG.example:80")], "http://lisbon.test:1/-/content/img/a"),
        ("/-/content/img/a", vec![], "http://lisbon.test:1/-/content/img/a"),
        ("/a?lat=30&lng=-100", vec![], "http://origin.test:1/-/content/files/a"),
    ] {
        assert_eq!(router.location(path, &headers).await, expected, "{path} {headers:?}");
    }
    let by_id = format!("/-/{ID}");
    assert_eq!(router.location(&by_id, &[]).await, format!("http://lisbon.test:1{by_id}"));
    assert_eq!(
        router.location(&format!("{by_id}?lat=30&lng=-100"), &[]).await,
        format!("http://origin.test:1/-/content-id/{ID}")
    );
}

#[tokio::test]
async fn an_edge_that_has_the_file_is_preferred() {
    let (control, router) = cluster().await;
    *control.holding.lock().expect("lock") = Holding::By(vec!["tokyo", "berlin"]);
    // Control answers in time sooner or later; meanwhile nobody is known to hold it.
    router.wait_for_location("/a", "http://berlin.test:1/a").await;
    let (status, headers, body) = router.ask(Method::HEAD, "/a", &[]).await;
    assert_eq!((status.as_u16(), body.as_str()), (307, ""));
    assert_eq!(headers["location"], "http://berlin.test:1/a");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["littoral-route"], "berlin; reason=\"the nearest live edge that has the file\"");
    assert!(router.metric("littoral_router_choices_total{why=\"has_file\"}") >= 2);
    // The answer is remembered for a moment.
    router.ask_until("littoral_router_holder_lookups_total{result=\"remembered\"}", || "/a".to_owned()).await;

    *control.holding.lock().expect("lock") = Holding::NoSuchFile;
    assert_eq!(router.location("/no-such-file", &[]).await, "http://lisbon.test:1/no-such-file");
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_with_a_reason() {
    let (control, router) = cluster().await;
    for (method, path, headers, status, why) in [
        (Method::POST, "/a", vec![], 405, "GET and HEAD, not POST"),
        (Method::GET, "/a?lat=1", vec![], 400, "no lng"),
        (Method::GET, "/a?lat=x&lng=1", vec![], 400, "not a number"),
        (Method::GET, "/a/%2e%2e/b", vec![], 400, "'.' and '..'"),
        (Method::GET, "/a//b", vec![], 400, "empty segment"),
        (Method::GET, "/", vec![("host", "img.example")], 404, "no index"),
        (Method::GET, "/-/content/nope/a", vec![], 404, "no zone 'nope'"),
        (Method::GET, "/-/nope", vec![], 404, "/-/ID"),
    ] {
        let (got, answer, body) = router.ask(method, path, &headers).await;
        assert!(got == status && body.contains(why), "{path}: {got} {body}");
        assert_eq!(answer["content-type"], "application/problem+json");
        assert_eq!(answer.get("allow").is_some(), status == 405);
    }
    assert_eq!(router.metric("littoral_router_requests_total{answer=\"refused\"}"), 8);

    control.configure(|snapshot| snapshot.zones.retain(|zone| !zone.catch_all));
    let begun = tokio::time::Instant::now();
    loop {
        let (status, _, body) = router.ask(Method::GET, "/a", &[("host", "other.example")]).await;
        if status == 404 {
            assert!(body.contains("no zone answers for the host \\\"other.example\\\""), "{body}");
            break;
        }
        assert!(begun.elapsed().as_secs() < 20, "the zone is still there");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
