//! 102 and 103 before the final response.

use net::ServerLimits;

use super::kit::{Raw, start};

#[tokio::test]
async fn hints_come_before_the_response() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    for _ in 0..2 {
        raw.write("GET /hints HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(raw.head().await.expect("102"), "HTTP/1.1 102 Processing\r\n\r\n");
        assert_eq!(raw.head().await.expect("103"), "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        assert_eq!(raw.answer().await.expect("200").body, "hinted");
    }
    raw.write("GET /hint-first HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(raw.head().await.expect("103").starts_with("HTTP/1.1 103 "));
    assert_eq!(raw.answer().await.expect("200").body, "hinted");
}

#[tokio::test]
async fn old_clients_get_the_response_only() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    raw.write("GET /hints HTTP/1.0\r\n\r\n").await;
    assert_eq!(raw.answer().await.expect("200").status, 200);
}
