//! What the wire looks like: the OpenAPI description against what answers, the raw event stream, the admin listener.

use http::{Method, StatusCode};
use serde_json::Value;
use testbed::{Cluster, Settings};

async fn one_edge() -> Cluster {
    Cluster::with(Settings { edges: vec!["a@0,0"], ..Settings::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_that_is_described_answers() {
    let cluster = one_edge().await;
    let answer = cluster.get(&format!("{}/v1/openapi.json", cluster.local.api)).await;
    assert_eq!(answer.text(), include_str!("../../../api/openapi.json"), "served as it is committed");
    let description: Value = serde_json::from_str(&answer.text()).expect("json");
    let doc = cluster.put("a", "x").await;
    let token = cluster.admin_token();
    let mut asked = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        let concrete = path
            .replace("{zone}", "files")
            .replace("{path}", "a")
            .replace("{id}", &doc.id.to_string())
            .replace("{name}", "a");
        for method in methods.as_object().expect("methods").keys() {
            let method: Method = method.to_uppercase().parse().expect("a method");
            if method == Method::DELETE || path == "/v1/events" {
                continue;
            }
            let answer = cluster.api(method.clone(), &concrete, Some(&token), &[], "{}").await;
            let text = answer.text();
            assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {concrete}");
            assert!(
                answer.status != StatusCode::NOT_FOUND || !text.contains("unknown_endpoint"),
                "{method} {concrete}: {text}"
            );
            asked += 1;
        }
    }
    assert!(asked >= 17, "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_stream_reads_well_with_curl() {
    let cluster = one_edge().await;
    let doc = cluster.put("a.txt", "x").await;
    cluster.client().delete_file(&cluster.zone(), &doc.path, None, true).await.expect("deleted");
    let token = cluster.admin_token();
    let answer = cluster.api(Method::GET, "/v1/events?after=0&follow=false", Some(&token), &[], "").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "text/event-stream"));
    let text = answer.text();
    assert!(text.starts_with("event: hello\ndata: {\"catalog_id\":"), "{text}");
    assert!(
        text.contains(&format!("id: {}\nevent: file_updated\ndata: {{\"seq\":{},", doc.event, doc.event)),
        "{text}"
    );
    assert!(text.contains("event: file_deleted\n"), "{text}");
    let numbers: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no number is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_and_the_names_of_metrics() {
    let cluster = one_edge().await;
    cluster.put("secret-name.txt", "x").await;
    cluster.get(&format!("{}/secret-name.txt", cluster.edge_url("a"))).await;
    let admin = cluster.local.admin.clone();
    for path in ["/livez", "/readyz", "/health", "/version"] {
        assert_eq!(cluster.get(&format!("{admin}{path}")).await.status, StatusCode::OK, "{path}");
    }
    let metrics = cluster.get(&format!("{admin}/metrics")).await.text();
    assert!(metrics.trim_end().ends_with("# EOF"));
    assert!(!metrics.contains("secret-name"), "no label holds a URL");
    for role in ["control", "origin", "edge", "router", "monitor"] {
        assert!(metrics.contains(&format!("# HELP littoral_{role}_")), "{role}");
    }
    for line in metrics.lines().filter(|line| line.starts_with("# TYPE ") && line.ends_with(" counter")) {
        let name = line.split(' ').nth(2).expect("a name");
        assert!(metrics.lines().any(|line| line.starts_with(&format!("{name}_total"))), "{name}");
    }
}
