//! The event stream, with the typed client and as raw text.

use api::{Change, ErrorCode, PurgeRequest};
use client::StreamItem;
use http::{Method, Request};
use http_body_util::BodyExt;
use net::Body;

use crate::kit::{ADMIN, Kit, NODE, next, parse};

async fn purge(kit: &Kit) -> u64 {
    let request = PurgeRequest { zones: vec![parse("files")], ..PurgeRequest::default() };
    kit.admin().purge(&request).await.expect("purge").event
}

#[tokio::test]
async fn a_stream_begins_where_it_is_asked_to() {
    let kit = Kit::new().await;
    let head = purge(&kit).await;
    let mut all = kit.node().events(Some(0), true).await.expect("all");
    let mut new = kit.admin().events(None, true).await.expect("new");
    for stream in [&mut all, &mut new] {
        let Some(StreamItem::Hello(hello)) = next(stream).await else { panic!("no hello") };
        assert_eq!((hello.head, hello.oldest, hello.generation), (head, 1, 2));
    }
    for expected in 1..=head {
        let Some(StreamItem::Event(event)) = next(&mut all).await else { panic!("no event") };
        assert_eq!(event.seq, expected);
    }
    let later = purge(&kit).await;
    for stream in [&mut all, &mut new] {
        let Some(StreamItem::Event(event)) = next(stream).await else { panic!("no event") };
        assert!(event.seq == later && matches!(event.change, Change::Purge(_)));
    }
}

#[tokio::test]
async fn health_is_told_first_and_when_there_is_news() {
    let kit = Kit::new().await;
    let mut early = kit.node().events(None, true).await.expect("early");
    assert!(matches!(next(&mut early).await, Some(StreamItem::Hello(_))));
    // Without a verdict a comment says at once that there is none.
    let mut second = kit.node().events(None, true).await.expect("second");
    assert!(matches!(second.next().await.expect("hello"), Some(StreamItem::Hello(_))));
    assert!(matches!(second.next().await.expect("comment"), Some(StreamItem::Ping)));
    kit.verdict(1, &[("lisbon", true)]).await;
    let mut late = kit.node().events(None, true).await.expect("late");
    assert!(matches!(next(&mut late).await, Some(StreamItem::Hello(_))));
    for stream in [&mut early, &mut late] {
        assert!(matches!(next(stream).await, Some(StreamItem::Health(health)) if health.generation == 1));
    }
    kit.verdict(2, &[("lisbon", true)]).await;
    kit.verdict(3, &[("lisbon", false)]).await;
    for stream in [&mut early, &mut late] {
        assert!(matches!(next(stream).await, Some(StreamItem::Health(health)) if health.generation == 3));
    }
}

#[tokio::test]
async fn what_curl_sees() {
    let kit = Kit::new().await;
    purge(&kit).await;
    let answer = kit.send(Method::GET, "/v1/events?after=2&follow=false", Some(ADMIN), "").await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let text = answer.text();
    let (hello, rest) = text.split_once("\n\n").expect("hello");
    assert!(hello.starts_with("event: hello\ndata: {\"catalog_id\":\""), "{hello}");
    let events = rest.trim_start_matches(": ping\n\n");
    assert_eq!(
        events,
        "id: 3\nevent: purge\ndata: {\"seq\":3,\"at_ms\":1700000000000,\"kind\":\"purge\",\"zones\":[\"files\"],\"soft\":false}\n\n"
    );
    // A quiet stream says every second that it is there.
    let request = Request::get(format!("{}/v1/events", kit.url)).header("authorization", format!("Bearer {NODE}"));
    let mut body = kit.http.send(request.body(Body::empty()).expect("request")).await.expect("stream").into_body();
    let mut seen = String::new();
    while seen.matches(": ping\n\n").count() < 2 {
        let data = body.frame().await.expect("goes on").expect("whole").into_data().expect("data");
        seen.push_str(std::str::from_utf8(&data).expect("text"));
    }
}

#[tokio::test]
async fn numbers_that_are_not_kept_are_gone() {
    let kit = Kit::keeping_events(3).await;
    let mut head = 0;
    for _ in 0..5 {
        head = purge(&kit).await;
    }
    let ask = async |after| kit.node().events(Some(after), true).await.map(|_| ()).map_err(|e| e.code().expect("code"));
    assert_eq!(ask(0).await, Err(ErrorCode::EventsGone));
    assert_eq!(ask(head - 4).await, Err(ErrorCode::EventsGone));
    assert_eq!(ask(head - 3).await, Ok(()));
    assert_eq!(ask(head).await, Ok(()));
    assert_eq!(ask(head + 1).await, Err(ErrorCode::EventsGone), "a number that was never given");
    let answer = kit.send(Method::GET, "/v1/events?after=0", Some(ADMIN), "").await;
    assert!(answer.shown().contains("410 events_gone"), "{}", answer.shown());
}

#[tokio::test]
async fn streams_end_when_control_does_and_are_counted() {
    let mut kit = Kit::new().await;
    let mut stream = kit.node().events(None, true).await.expect("stream");
    assert!(matches!(next(&mut stream).await, Some(StreamItem::Hello(_))));
    assert!(kit.metrics().contains("littoral_control_event_streams 1"), "{}", kit.metrics());
    kit.stop().await;
    assert!(next(&mut stream).await.is_none());
    let metrics = kit.metrics();
    assert!(metrics.contains("littoral_control_event_streams 0"), "{metrics}");
    assert!(metrics.contains("littoral_control_commit_seconds_count"), "{metrics}");
}
