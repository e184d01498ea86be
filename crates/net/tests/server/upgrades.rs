//! Another protocol on the same connection.

use net::ServerLimits;
use tokio::io::AsyncReadExt;

use super::kit::{PATIENCE, Raw, start};

const UPGRADE: &str = "GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: loud\r\n\r\n";

#[tokio::test]
async fn echo_with_bytes_that_came_along() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    raw.write(format!("{UPGRADE}ahead ")).await;
    let head = raw.head().await.expect("101");
    assert!(
        head.starts_with("HTTP/1.1 101 ")
            && head.contains("upgrade: loud\r\n")
            && head.contains("connection: upgrade\r\n")
    );
    raw.write("and after").await;
    let mut echo = [0; 15];
    tokio::time::timeout(PATIENCE, raw.0.read_exact(&mut echo)).await.expect("in time").expect("echo");
    assert_eq!(&echo, b"AHEAD AND AFTER");
}

#[tokio::test]
async fn only_requests_that_ask_can_upgrade() {
    let server = start(ServerLimits::default()).await;
    let not_asked = [
        UPGRADE.replace("HTTP/1.1", "HTTP/1.0"),
        UPGRADE.replace("Connection: keep-alive, Upgrade\r\n", ""),
        UPGRADE.replace("Upgrade: loud\r\n", ""),
        UPGRADE.replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx"),
    ];
    for request in not_asked {
        let mut raw = Raw::connect(&server).await;
        raw.write(&request).await;
        assert_eq!(raw.answer().await.expect("an answer").body, "no upgrade", "{request}");
    }
}

#[tokio::test]
async fn upgraded_connections_are_cut_after_the_drain_time() {
    let server = start(ServerLimits { drain_ms: 50, ..ServerLimits::default() }).await;
    let mut raw = Raw::connect(&server).await;
    raw.write(UPGRADE).await;
    raw.head().await.expect("101");
    server.shutdown.cancel();
    assert_eq!(raw.rest().await.0, "");
    tokio::time::timeout(PATIENCE, server.task).await.expect("in time").expect("drained");
}
