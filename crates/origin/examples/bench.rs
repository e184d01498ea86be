//! temp
#![allow(dead_code, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing)]
#[path = "../tests/origin/control.rs"]
mod control;
use std::sync::*;
#[tokio::main]
async fn main() {
    let dir = std::path::PathBuf::from("/work/benchdir");
    let blobs = objects::Blobs::folder(&dir).unwrap();
    let c = Arc::new(control::Control { records: Mutex::default(), blobs: blobs.clone(), next_event: Default::default() });
    let l = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", l.local_addr().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(net::serve(l, control::router(c), Default::default(), stop.clone()));
    let config = origin::OriginConfig { control_url: url, node_token: api::TokenSecret::parse(control::NODE_TOKEN).unwrap(), limits: Default::default(), collector: Default::default() };
    let o = origin::Origin::new(config, blobs, net::HttpClient::new(Default::default()), &mut Default::default());
    let l = tokio::net::TcpListener::bind("127.0.0.1:7999").await.unwrap();
    o.run(l, stop).await;
}
