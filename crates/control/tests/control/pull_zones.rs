//! Pull zones: kept as they are put, without files, purged by URL and host.

use api::{Change, ErrorCode, PurgeRequest, ZoneDoc};
use client::StreamItem;
use http::Method;
use serde_json::json;

use crate::kit::{ADMIN, Kit, parse, upload};

fn shop() -> serde_json::Value {
    json!({
        "name": "shop",
        "hosts": ["shop.example", "www.shop.example"],
        "pull": {
            "upstreams": [{"url": "https://10.0.0.5:8443", "weight": 2}],
            "policy": "rfc",
            "rules": [{"path": "/img/*", "statuses": ["2xx", "404"], "ttl_s": 60}],
            "key": {"query": {"except": ["utm_*"]}, "host_aliases": {"www.shop.example": "shop.example"}},
            "trusted_networks": ["10.0.0.0/8"]
        }
    })
}

async fn put(kit: &Kit, zone: &serde_json::Value) -> crate::kit::Answer {
    let name = zone["name"].as_str().expect("name");
    kit.send(Method::PUT, &format!("/v1/zones/{name}"), Some(ADMIN), &zone.to_string()).await
}

#[tokio::test]
async fn a_policy_is_kept_whole_and_checked() {
    let kit = Kit::new().await;
    assert_eq!(put(&kit, &shop()).await.status, 201);
    let sent: ZoneDoc = serde_json::from_value(shop()).expect("zone");
    assert_eq!(kit.admin().zone(&sent.name).await.expect("zone"), sent);
    let kit = kit.restart().await;
    assert_eq!(kit.admin().zone(&sent.name).await.expect("zone"), sent);

    let mut wrong = shop();
    wrong["pull"]["upstreams"][0]["url"] = json!("https://10.0.0.5:8443/shop");
    let shown = put(&kit, &wrong).await.shown();
    assert!(shown.starts_with("400 invalid_request: pull.upstreams[0].url:"), "{shown}");
    let mut unknown = shop();
    unknown["pull"]["polcy"] = json!("rfc");
    let shown = put(&kit, &unknown).await.shown();
    assert!(shown.starts_with("400") && shown.contains("polcy"), "{shown}");
    assert_eq!(kit.admin().zone(&sent.name).await.expect("as it was"), sent);
}

#[tokio::test]
async fn files_and_pulling_exclude_each_other() {
    let kit = Kit::new().await;
    put(&kit, &shop()).await;
    let words = "zone 'shop' is a pull zone";
    let target = api::node::UploadTarget::Path { zone: parse("shop"), path: parse("a") };
    let authorization = Some(format!("Bearer {ADMIN}"));
    let begin = api::node::UploadBegin { authorization, target: target.clone(), conditions: Default::default() };
    let error = kit.node().upload_begin(&begin).await.expect_err("begin");
    assert!(error.code() == Some(ErrorCode::Conflict) && error.to_string().contains(words), "{error}");
    let error = kit.node().upload_commit(&upload(target, "1", false)).await.expect_err("commit");
    assert_eq!(error.code(), Some(ErrorCode::Conflict));
    for (method, address) in [
        (Method::GET, "/v1/zones/shop/files/a"),
        (Method::DELETE, "/v1/zones/shop/files/a"),
        (Method::GET, "/v1/zones/shop/files"),
        (Method::GET, "/v1/locate?zone=shop&path=a"),
    ] {
        let shown = kit.send(method, address, Some(ADMIN), "").await.shown();
        assert!(shown.starts_with("409 conflict: ") && shown.contains(words), "{address}: {shown}");
    }

    kit.put("files", "a", "1", false).await;
    let mut files = shop();
    (files["name"], files["hosts"], files["pull"]["key"]) = (json!("files"), json!([]), json!({}));
    let shown = put(&kit, &files).await.shown();
    assert!(shown.starts_with("409 conflict: zone 'files' holds 1 files and cannot become a pull zone"), "{shown}");
    assert_eq!(put(&kit, &json!({"name": "shop"})).await.status, 200, "it held nothing");
    assert!(kit.put("shop", "a", "1", false).await.created);
}

#[tokio::test]
async fn a_purge_names_pages_prefixes_and_hosts() {
    let kit = Kit::new().await;
    put(&kit, &shop()).await;
    let head = kit.admin().status().await.expect("status").event;
    let request: PurgeRequest = serde_json::from_value(json!({
        "zone": "shop",
        "urls": ["/a?b=2&utm_x=1&a=1", "https://www.shop.example/ü", "http://elsewhere.example/file"],
        "prefixes": ["/img/", "https://www.shop.example/css/"],
        "hosts": ["www.shop.example:443"],
        "tags": ["product-1"]
    }))
    .expect("request");
    let event = kit.admin().purge(&request).await.expect("purge").event;
    assert_eq!(event, head + 1);
    let mut stream = kit.admin().events(Some(head), true).await.expect("stream");
    let purge = loop {
        match crate::kit::next(&mut stream).await {
            Some(StreamItem::Event(event)) => break event,
            Some(_) => {}
            None => panic!("the stream ended"),
        }
    };
    let Change::Purge(targets) = purge.change else { panic!("{purge:?}") };
    assert_eq!(
        serde_json::to_value(&targets).expect("json"),
        json!({
            "urls": [{"zone": "files", "path": "file"}],
            "pages": [
                {"zone": "shop", "url": "shop.example/a?a=1&b=2"},
                {"zone": "shop", "url": "shop.example/%C3%BC"}
            ],
            "prefixes": [{"zone": "shop", "prefix": "/img/"}, {"zone": "shop", "prefix": "shop.example/css/"}],
            "tags": [{"zone": "shop", "tag": "product-1"}],
            "hosts": [{"zone": "shop", "host": "shop.example"}],
            "soft": false
        })
    );

    let body = json!({"zone": "shop", "hosts": ["shop.exmaple"]}).to_string();
    let shown = kit.send(Method::POST, "/v1/purge", Some(ADMIN), &body).await.shown();
    assert!(shown.starts_with("404 unknown_zone: hosts[0]") && shown.contains("www.shop.example"), "{shown}");
    assert_eq!(kit.admin().status().await.expect("status").event, event, "refused as a whole");
}
