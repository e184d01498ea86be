//! What is handed on to control, and what is not.

use http::Request;
use http_body_util::BodyExt;
use net::{Body, ClientLimits, HttpClient};
use serde_json::Value;

use crate::control::USER;
use crate::kit::Kit;

#[tokio::test]
async fn requests_go_on_as_they_are_and_answers_come_back() {
    let kit = Kit::new().await;
    let fields = [
        ("content-type", "application/json"),
        ("x-mine", "1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        (api::headers::NODE_TOKEN, "lit_node"),
        (api::headers::CLIENT_AUTHORIZATION, "Bearer stolen"),
    ];
    for (method, target) in [
        ("POST", "/v1/purge"),
        ("DELETE", "/v1/zones/files/files/a%2Fb%20c?wait=edges"),
        ("PATCH", "/v1/files/x"),
        ("GET", "/v1/zones/files/files?prefix=%C3%A4&limit=5"),
        ("PUT", "/v1/zones/files"),
    ] {
        let answer = kit.send(method, target, &fields, Body::full("{\"a\":1}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-from"), answer.header("x-hop")), (202, "control", ""));
        let seen: Value = serde_json::from_slice(&answer.body).expect("json");
        assert_eq!((&seen["method"], &seen["target"]), (&Value::from(method), &Value::from(target)));
        assert_eq!(seen["body"], "{\"a\":1}");
        let headers = &seen["headers"];
        assert_eq!((&headers["authorization"], &headers["x-mine"]), (&Value::from(USER), &Value::from("1")));
        assert_eq!(headers["via"], "1.1 littoral-origin");
        for gone in ["x-hop", api::headers::NODE_TOKEN, api::headers::CLIENT_AUTHORIZATION] {
            assert!(headers[gone].is_null(), "{gone}");
        }
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    let kit = Kit::new().await;
    let most = vec![b'x'; api::MAX_JSON_BODY_BYTES];
    assert_eq!(kit.send("POST", "/v1/purge", &[], Body::full(most.clone())).await.status, 202);
    let more = [most, vec![b'x']].concat();
    let problem = kit.send("POST", "/v1/purge", &[], Body::full(more)).await.problem();
    assert_eq!(problem.code.word(), "too_large");
}

#[tokio::test]
async fn event_streams_flow_as_they_come() {
    let kit = Kit::new().await;
    let http = HttpClient::new(ClientLimits::default());
    let request = Request::get(format!("http://{}/v1/events?after=0", kit.address)).body(Body::empty());
    let response = http.send(request.expect("request")).await.expect("response");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let first = body.frame().await.expect("a frame").expect("whole").into_data().expect("data");
    assert_eq!(first, "event: hello\n\n");
    // The second only exists once the first has come through.
    kit.control.next_event.notify_one();
    let second = body.frame().await.expect("a frame").expect("whole").into_data().expect("data");
    assert_eq!(second, "event: config\n\n");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn what_is_not_served_here() {
    let kit = Kit::new().await;
    for (path, says) in [
        ("/v1/node/snapshot", "asks control directly"),
        ("/v1/node", "asks control directly"),
        ("/", "/v1/openapi.json"),
        ("/v2/status", "/v1/openapi.json"),
        ("/index.html", "/-/content/ZONE/PATH"),
    ] {
        let problem = kit.get(path, &[]).await.problem();
        assert_eq!((problem.status, problem.code.word()), (404, "unknown_endpoint"), "{path}");
        assert!(problem.detail.contains(says), "{path}: {}", problem.detail);
    }
}
