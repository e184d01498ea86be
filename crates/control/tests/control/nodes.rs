//! Edges: joining, waiting for them, their health, and choosing among them.

use std::time::Duration;

use api::node::{Join, Placement, Placements};
use api::{Health, Place, PurgeRequest, ReceiptState};
use client::StreamItem;
use client::node::FileKey;

use crate::kit::{Kit, next, parse};

/// An edge that applies what the stream brings, and acknowledges each event, until its client is gone.
async fn edge(kit: &Kit, name: &str) -> tokio::task::JoinHandle<()> {
    let name = kit.join(name, 0.0, 0.0).await;
    let client = kit.node();
    let mut stream = client.events(None, true).await.expect("stream");
    tokio::spawn(async move {
        while let Ok(Some(item)) = stream.next().await {
            let number = match item {
                StreamItem::Hello(hello) => hello.head,
                StreamItem::Event(event) => event.seq,
                StreamItem::Health(_) | StreamItem::Ping => continue,
            };
            if client.ack(&name, number).await.is_err() {
                return;
            }
        }
    })
}

#[tokio::test]
async fn waiting_names_every_edge() {
    let kit = Kit::new().await;
    let _lisbon = edge(&kit, "lisbon").await;
    let _oslo = edge(&kit, "oslo").await;
    kit.join("rome", 0.0, 0.0).await;
    kit.verdict(1, &[("lisbon", true), ("rome", false)]).await;
    let shown = |receipts: &[api::Receipt]| {
        receipts.iter().map(|r| format!("{}:{:?}", r.node, r.state)).collect::<Vec<_>>().join(" ")
    };
    let expected = "lisbon:Applied oslo:Applied rome:Dead";
    let file = kit.put("files", "a", "1", true).await.file;
    assert_eq!(shown(&file.receipts), expected);
    assert!(file.receipts.iter().all(|receipt| receipt.ms >= 0.0));
    let patch = api::FilePatch { path: Some(parse("b")), ..Default::default() };
    let file = kit.admin().patch_file(file.id, &patch, true).await.expect("patch");
    assert_eq!(shown(&file.receipts), expected);
    let purge = PurgeRequest { zones: vec![parse("files")], wait: true, ..PurgeRequest::default() };
    assert_eq!(shown(&kit.admin().purge(&purge).await.expect("purge").receipts), expected);
    let gone = kit.admin().delete_file_by_id(file.id, true).await.expect("delete");
    assert_eq!(shown(&gone.receipts), expected);
    let applied =
        |name: &str, nodes: &[api::NodeView]| nodes.iter().find(|n| n.node.name.as_str() == name).map(|n| n.applied);
    let nodes = kit.admin().nodes().await.expect("nodes").nodes;
    assert_eq!((applied("lisbon", &nodes), applied("rome", &nodes)), (Some(gone.event), Some(0)));
}

#[tokio::test]
async fn an_edge_that_dies_is_not_waited_for_any_longer() {
    let kit = Kit::new().await;
    kit.join("lisbon", 0.0, 0.0).await;
    kit.verdict(1, &[("lisbon", true)]).await;
    let mut stream = kit.node().events(None, true).await.expect("stream");
    let upload = async {
        let began = tokio::time::Instant::now();
        let receipts = kit.put("files", "a", "1", true).await.file.receipts;
        (receipts, began.elapsed())
    };
    let bury = async {
        // Once the event is out, somebody waits for the edge to apply it.
        while !matches!(next(&mut stream).await, Some(StreamItem::Event(_))) {}
        kit.verdict(2, &[("lisbon", false)]).await;
    };
    let ((receipts, _), ()) = tokio::join!(upload, bury);
    assert_eq!((receipts.len(), receipts[0].state), (1, ReceiptState::Dead));
    assert!(receipts[0].ms < Duration::from_millis(api::MAX_WAIT_MS).as_secs_f64() * 1_000.0);
}

#[tokio::test]
async fn joining_twice_changes_nothing_and_answers_the_configuration() {
    let kit = Kit::new().await;
    kit.join("lisbon", 1.0, 2.0).await;
    let before = kit.admin().status().await.expect("status");
    let node = before.nodes[0].node.clone();
    let snapshot = kit.node().join(&Join { node: node.clone(), keeps_placements: true }).await.expect("again");
    assert_eq!((snapshot.at.head, snapshot.at.generation), (before.event, before.generation));
    assert_eq!((snapshot.nodes.as_slice(), snapshot.zones.len(), snapshot.format), (&[node.clone()][..], 1, 1));
    assert_eq!(snapshot.origin.url, "http://127.0.0.1:8601", "without a slash at its end");
    assert_eq!(snapshot.at.catalog_id, before.catalog_id);
    kit.admin().delete_node(&node.name).await.expect("remove");
    assert!(kit.admin().nodes().await.expect("nodes").nodes.is_empty());
    assert!(kit.node().ack(&node.name, 1).await.is_err(), "it has to join again");
}

#[tokio::test]
async fn health_and_placements_show_in_nodes_and_locate() {
    let kit = Kit::new().await;
    kit.join("near", 1.0, 1.0).await;
    kit.join("far", 8.0, 8.0).await;
    kit.join("unheard", 0.0, 0.0).await;
    let file = kit.put("files", "a", "1", false).await.file;
    let holds = Placements { added: vec![Placement { id: file.id, version: 1 }], removed: Vec::new() };
    kit.node().placements(&parse("far"), &holds).await.expect("placements");
    for key in [FileKey::Id(file.id), FileKey::Path(parse("files"), parse("a"))] {
        assert_eq!(kit.node().holders(&key).await.expect("holders").nodes, [parse::<api::NodeName>("far")]);
    }
    let place = Place::new(0.0, 0.0).expect("place");
    let locate = async || {
        let answer = kit.client(None).locate(&parse("files"), &parse("a"), Some(place)).await.expect("locate");
        assert_eq!(answer.candidates.len(), 4);
        (answer.chosen, answer.url)
    };
    let origin = ("origin".to_owned(), "http://127.0.0.1:8601/-/content/files/a".to_owned());
    assert_eq!(locate().await, origin, "nobody is known to be alive");
    kit.verdict(5, &[("near", true), ("far", true)]).await;
    assert_eq!(locate().await, ("far".to_owned(), "http://far.example:8610/a".to_owned()), "it has the file");
    kit.verdict(6, &[("near", true), ("far", false)]).await;
    assert_eq!(locate().await, ("near".to_owned(), "http://near.example:8610/a".to_owned()));
    let old = Health { generation: 5, nodes: kit.admin().nodes().await.map(|_| Vec::new()).expect("nodes") };
    assert!(kit.node().put_health(&old).await.is_err());

    let nodes = kit.admin().nodes().await.expect("nodes").nodes;
    let shown: Vec<_> = nodes.iter().map(|n| (n.node.name.as_str(), n.alive, n.load, n.files)).collect();
    assert_eq!(shown, [("far", false, 3, 1), ("near", true, 3, 0), ("unheard", false, 0, 0)]);
    assert!(nodes[1].last_heartbeat_ms >= Some(7) && nodes[2].last_heartbeat_ms.is_none());
    // The client's place is the default one where it says none.
    let default = kit.client(None).locate(&parse("files"), &parse("a"), None).await.expect("locate");
    assert_eq!(default.client, Place::new(10.0, 10.0).expect("place"));
}

#[tokio::test]
async fn a_zone_of_its_own_host_is_located_by_name() {
    let kit = Kit::new().await;
    let zone = api::ZoneDoc { hosts: vec!["img.example".to_owned()], ..api::ZoneDoc::new(parse("img")) };
    kit.admin().put_zone(&zone).await.expect("zone");
    kit.put("img", "a b", "1", false).await;
    kit.join("near", 0.0, 0.0).await;
    kit.verdict(1, &[("near", true)]).await;
    let place = Place::new(0.0, 0.0).expect("place");
    let answer = kit.client(None).locate(&zone.name, &parse("a b"), Some(place)).await.expect("locate");
    assert_eq!(answer.url, "http://near.example:8610/-/content/img/a%20b");
}
