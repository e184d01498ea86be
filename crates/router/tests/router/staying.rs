//! What a router does when the whole around it changes or goes away.

use http::Method;
use router::Mode;

use crate::fakes::{BERLIN, Control, Holding, LISBON, Running, nobody, node};

async fn cluster() -> Control {
    let nodes = vec![node("lisbon", LISBON, "http://lisbon.test:1"), node("berlin", BERLIN, "http://berlin.test:1")];
    Control::start(nodes, "http://origin.test:1").await
}

#[tokio::test]
async fn changes_of_health_and_configuration_are_followed() {
    let control = cluster().await;
    let router = Running::start(Mode::Redirect, &control.url, None).await;
    router.wait_for_location("/a", "http://lisbon.test:1/a").await;
    control.alive(&[("lisbon", false), ("berlin", true)]);
    router.wait_for_location("/a", "http://berlin.test:1/a").await;
    control.alive(&[("lisbon", false), ("berlin", false)]);
    router.wait_for_location("/a", "http://origin.test:1/-/content/files/a").await;
    control.alive(&[("lisbon", true), ("madrid", true)]);
    router.wait_for_location("/a", "http://lisbon.test:1/a").await;
    control.configure(|snapshot| snapshot.nodes.push(node("madrid", (40.42, -3.70), "http://madrid.test:1")));
    router.wait_for_location("/a", "http://madrid.test:1/a").await;
    assert_eq!(router.metric("littoral_router_config_generation"), 2);
}

#[tokio::test]
async fn without_control_it_goes_on_and_starts_again() {
    let control = cluster().await;
    let folder = tempfile::tempdir().expect("folder");
    let router = Running::start(Mode::Redirect, &control.url, Some(folder.path())).await;
    control.alive(&[("lisbon", false), ("berlin", true)]);
    router.wait_for_location("/a", "http://berlin.test:1/a").await;

    // Control says nothing any more, then it is gone.
    *control.holding.lock().expect("lock") = Holding::Silence;
    let count = std::cell::Cell::new(0);
    let other_path = || {
        count.set(count.get() + 1);
        format!("/{}", count.get())
    };
    router.ask_until("littoral_router_holder_lookups_total{result=\"failed\"}", other_path).await;
    router.ask_until("littoral_router_holder_lookups_total{result=\"skipped\"}", other_path).await;
    assert_eq!(router.location("/c", &[]).await, "http://berlin.test:1/c");
    control.stop.cancel();
    let begun = tokio::time::Instant::now();
    while router.metric("littoral_router_event_stream_live") == 1 {
        assert!(begun.elapsed().as_secs() < 20, "the stream has not ended");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(router.location("/d", &[]).await, "http://berlin.test:1/d");

    // The snapshot is on disk; of health nothing is known, so everyone counts as alive.
    let again = Running::start(Mode::Redirect, &nobody().await, Some(folder.path())).await;
    assert_eq!(again.location("/e", &[]).await, "http://lisbon.test:1/e");
}

#[tokio::test]
async fn it_stops_when_told_to() {
    let control = cluster().await;
    let router = Running::start(Mode::Redirect, &control.url, None).await;
    assert_eq!(router.ask(Method::GET, "/a", &[]).await.0, 307);
    router.shutdown.cancel();
    let begun = tokio::time::Instant::now();
    let address = router.url.strip_prefix("http://").expect("scheme");
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(begun.elapsed().as_secs() < 20, "still listening");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
