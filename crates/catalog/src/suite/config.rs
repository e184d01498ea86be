//! Zones, nodes, placements and tokens: what the configuration is made of.

use api::node::{Conditions, Placement, Placements};
use api::pull::UpstreamDoc;
use api::{Change, NewToken, NodeDoc, Place, PullDoc, Scope, TokenKind, TokenSecret, ZoneDoc};

use super::{Home, NOW_MS, at, by_id, commit, head, parse, put, upload, with_zone};
use crate::{Catalog, CatalogError, ZonePut};

pub(super) async fn zones_are_kept_as_they_are_put(home: &impl Home) {
    let catalog = home.open().await;
    let zone = |name: &str, hosts: &[&str]| ZoneDoc {
        hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        index: Some("index.html".to_owned()),
        ..ZoneDoc::new(parse(name))
    };
    let b = zone("b", &["b.example", "www.b.example"]);
    assert_eq!(catalog.put_zone(b.clone(), NOW_MS).await.expect("b"), ZonePut::Created);
    assert_eq!(catalog.put_zone(zone("a", &[]), NOW_MS).await.expect("a"), ZonePut::Created);
    assert_eq!(catalog.put_zone(b.clone(), NOW_MS).await.expect("same"), ZonePut::Unchanged);
    assert_eq!(catalog.head().await.expect("head").generation, 2);
    assert_eq!(catalog.zone(&b.name).await.expect("b"), b);
    let b = ZoneDoc { ttl_s: 5, ..b };
    assert_eq!(catalog.put_zone(b.clone(), NOW_MS).await.expect("other"), ZonePut::Changed);
    assert_eq!(catalog.zones().await.expect("zones"), [zone("a", &[]), b.clone()]);

    let error = catalog.put_zone(zone("c", &["c.example", "b.example"]), NOW_MS).await.expect_err("host").to_string();
    assert_eq!(error, "host 'b.example' already belongs to zone 'b'");
    let all = |name| ZoneDoc { catch_all: true, ..zone(name, &[]) };
    catalog.put_zone(all("a"), NOW_MS).await.expect("a catches all");
    let error = catalog.put_zone(all("c"), NOW_MS).await.expect_err("second").to_string();
    assert_eq!(error, "zone 'a' is already the one that catches all hosts");
    assert!(matches!(catalog.zone(&parse("c")).await, Err(CatalogError::UnknownZone(_))));

    catalog.delete_zone(b.name.clone(), NOW_MS).await.expect("delete");
    assert!(matches!(catalog.delete_zone(b.name, NOW_MS).await, Err(CatalogError::UnknownZone(_))));
    let hello = catalog.head().await.expect("head");
    assert_eq!((hello.generation, hello.head), (5, 5));
    let last = catalog.events_after(4, 1).await.expect("events");
    assert_eq!(last[0].change, Change::Config { generation: 5 });
}

pub(super) async fn a_zone_with_files_stays(home: &impl Home) {
    let catalog = with_zone(home).await;
    put(&catalog, "a", "1").await;
    let error = catalog.delete_zone(parse("files"), NOW_MS).await.expect_err("files").to_string();
    assert_eq!(error, "zone 'files' still holds 1 files; delete those first");
    catalog.delete_file(at("a"), api::node::Conditions::default(), NOW_MS).await.expect("delete");
    catalog.delete_zone(parse("files"), NOW_MS).await.expect("empty now");
}

pub(super) async fn a_pull_zone_holds_no_files(home: &impl Home) {
    let catalog = home.open().await;
    let upstream = UpstreamDoc { url: "http://127.0.0.1:3000".to_owned(), weight: 3 };
    let pull = PullDoc { max_tags: 7, default_ttl_s: Some(0), ..PullDoc::new(vec![upstream]) };
    let shop = ZoneDoc { pull: Some(Box::new(pull)), ..ZoneDoc::new(parse("files")) };
    catalog.put_zone(shop.clone(), NOW_MS).await.expect("pull zone");
    assert_eq!(catalog.zone(&shop.name).await.expect("zone"), shop, "whole");
    assert_eq!(catalog.zones().await.expect("zones"), std::slice::from_ref(&shop));

    let refused = |error: CatalogError| assert!(matches!(error, CatalogError::PullZone(_)), "{error}");
    refused(catalog.begin_upload(&at("a"), &Conditions::default()).await.expect_err("begin"));
    refused(commit(&catalog, upload(at("a"), "1")).await.expect_err("commit"));
    refused(catalog.delete_file(at("a"), Conditions::default(), NOW_MS).await.expect_err("delete"));
    refused(catalog.file(&shop.name, &parse("a")).await.expect_err("read"));
    refused(catalog.list(&shop.name, "", 1, None).await.expect_err("list"));
    refused(catalog.holders(&shop.name, &parse("a")).await.expect_err("holders"));

    let store = ZoneDoc { pull: None, ..shop.clone() };
    catalog.put_zone(store.clone(), NOW_MS).await.expect("it has no files");
    put(&catalog, "a", "1").await;
    let error = catalog.put_zone(shop.clone(), NOW_MS).await.expect_err("files").to_string();
    assert!(error.starts_with("zone 'files' holds 1 files and cannot become a pull zone"), "{error}");
    assert_eq!(catalog.zone(&shop.name).await.expect("zone"), store, "as it was");
    catalog.delete_file(at("a"), Conditions::default(), NOW_MS).await.expect("delete");
    catalog.put_zone(shop, NOW_MS).await.expect("empty again");
}

fn node(name: &str, url: &str) -> NodeDoc {
    NodeDoc { name: parse(name), place: Place::new(1.5, -2.5).expect("place"), url: url.to_owned(), https_url: None }
}

pub(super) async fn a_join_that_says_nothing_new_makes_no_event(home: &impl Home) {
    let catalog = home.open().await;
    assert!(catalog.join(node("b", "http://b"), true, NOW_MS).await.expect("join"));
    assert!(catalog.join(node("a", "http://a"), true, NOW_MS).await.expect("join"));
    assert!(!catalog.join(node("b", "http://b"), true, NOW_MS).await.expect("again"));
    assert!(!catalog.join(node("b", "http://b"), false, NOW_MS).await.expect("again, empty"));
    assert_eq!(head(&catalog).await, 2);
    assert!(catalog.join(node("b", "http://b2"), true, NOW_MS).await.expect("moved"));
    assert_eq!(catalog.nodes().await.expect("nodes"), [node("a", "http://a"), node("b", "http://b2")]);
    catalog.remove_node(parse("a"), NOW_MS).await.expect("remove");
    assert!(matches!(catalog.remove_node(parse("a"), NOW_MS).await, Err(CatalogError::UnknownNode(_))));
    assert_eq!(catalog.head().await.expect("head").generation, 4);
}

pub(super) async fn holders_have_the_current_version(home: &impl Home) {
    let catalog = with_zone(home).await;
    for name in ["lisbon", "oslo"] {
        catalog.join(node(name, "http://x"), true, NOW_MS).await.expect(name);
    }
    let (a, b) = (put(&catalog, "a", "1").await, put(&catalog, "b", "2").await);
    let holds = |files: &[(api::FileId, u64)]| Placements {
        added: files.iter().map(|&(id, version)| Placement { id, version }).collect(),
        removed: Vec::new(),
    };
    let nobody = api::FileId(uuid::Uuid::nil());
    // A file twice, and one that is gone: the last word counts, the other is skipped.
    let report = holds(&[(a.id, 7), (a.id, 1), (nobody, 1), (b.id, 1)]);
    catalog.apply_placements(&parse("oslo"), report, NOW_MS).await.expect("oslo");
    catalog.apply_placements(&parse("lisbon"), holds(&[(a.id, 1)]), NOW_MS).await.expect("lisbon");
    assert_eq!(holders(&catalog, "a").await, ["lisbon", "oslo"]);
    assert_eq!(holders(&catalog, "b").await, ["oslo"]);
    assert_eq!(holders(&catalog, "none").await, [""; 0]);
    let counts = catalog.held_files().await.expect("counts");
    assert_eq!((counts[&parse::<api::NodeName>("oslo")], counts[&parse::<api::NodeName>("lisbon")]), (2, 1));

    commit(&catalog, upload(by_id(a.id), "new")).await.expect("update");
    assert_eq!(holders(&catalog, "a").await, [""; 0], "the old version is not the file");
    catalog.apply_placements(&parse("lisbon"), holds(&[(a.id, 2)]), NOW_MS).await.expect("lisbon");
    assert_eq!(holders(&catalog, "a").await, ["lisbon"]);
    let removed = Placements { added: Vec::new(), removed: vec![a.id, nobody] };
    catalog.apply_placements(&parse("lisbon"), removed, NOW_MS).await.expect("removed");
    assert_eq!(holders(&catalog, "a").await, [""; 0]);

    catalog.clear_placements(parse("oslo"), NOW_MS).await.expect("clear");
    assert_eq!(catalog.held_files().await.expect("counts").len(), 0);
    for (keeps, expected) in [(true, 1), (false, 0)] {
        catalog.apply_placements(&parse("oslo"), holds(&[(b.id, 1)]), NOW_MS).await.expect("oslo");
        catalog.join(node("oslo", "http://x"), keeps, NOW_MS).await.expect("join");
        assert_eq!(holders(&catalog, "b").await.len(), expected);
    }
    let unknown = catalog.apply_placements(&parse("rome"), holds(&[(b.id, 1)]), NOW_MS).await;
    assert!(matches!(unknown, Err(CatalogError::UnknownNode(_))));
    assert!(matches!(catalog.clear_placements(parse("rome"), NOW_MS).await, Err(CatalogError::UnknownNode(_))));

    let many: Vec<_> = (0..1_200).map(|_| (b.id, 1)).collect();
    catalog.apply_placements(&parse("oslo"), holds(&many), NOW_MS).await.expect("many");
    catalog.remove_node(parse("oslo"), NOW_MS).await.expect("remove");
    assert_eq!(holders(&catalog, "b").await, [""; 0]);
}

async fn holders(catalog: &Catalog, path: &str) -> Vec<String> {
    let nodes = catalog.holders(&parse("files"), &parse(path)).await.expect(path);
    nodes.iter().map(ToString::to_string).collect()
}

pub(super) async fn tokens_are_found_by_hash_and_readers_are_announced(home: &impl Home) {
    let catalog = home.open().await;
    let new = |label: &str, kind, scopes: &[Scope], expires_in_s| NewToken {
        label: label.to_owned(),
        kind,
        scopes: scopes.to_vec(),
        expires_in_s,
    };
    let hash = |secret: &str| TokenSecret::parse(secret).expect("secret").hash();
    let node = new("node", TokenKind::Node, &[], None);
    let writer = new("writer", TokenKind::User, &[Scope::Write, Scope::Purge], None);
    let reader = new("reader", TokenKind::User, &[Scope::Read], Some(60));
    let admin = new("admin", TokenKind::User, &[Scope::Admin], None);

    catalog.create_token(node, hash("n"), NOW_MS).await.expect("node");
    let writer = catalog.create_token(writer, hash("w"), NOW_MS + 1).await.expect("writer");
    assert_eq!(head(&catalog).await, 0, "edges need not know of those");
    let reader = catalog.create_token(reader, hash("r"), NOW_MS + 2).await.expect("reader");
    assert_eq!(reader.expires_ms, Some(NOW_MS + 2 + 60_000));
    let admin = catalog.create_token(admin, hash("a"), NOW_MS + 3).await.expect("admin");
    assert_eq!(catalog.head().await.expect("head").generation, 2);
    let again = catalog.create_token(new("x", TokenKind::User, &[], None), hash("r"), NOW_MS).await;
    assert!(matches!(again, Err(CatalogError::Conflict(_))));

    assert_eq!(catalog.token_by_hash(&hash("w")).await.expect("lookup"), Some(writer.clone()));
    assert_eq!(catalog.token_by_hash(&hash("?")).await.expect("lookup"), None);
    let labels: Vec<_> = catalog.tokens().await.expect("tokens").into_iter().map(|token| token.label).collect();
    assert_eq!(labels, ["node", "writer", "reader", "admin"]);
    let readers = catalog.readers_of_private_zones().await.expect("readers");
    let shown: Vec<_> = readers.iter().map(|r| (r.hash.clone(), r.expires_ms)).collect();
    assert_eq!(shown, [(hash("r"), reader.expires_ms), (hash("a"), None)]);

    catalog.delete_token(writer.id, NOW_MS).await.expect("delete");
    assert_eq!(head(&catalog).await, 2);
    catalog.delete_token(admin.id.clone(), NOW_MS).await.expect("delete");
    assert_eq!(head(&catalog).await, 3);
    assert!(matches!(catalog.delete_token(admin.id, NOW_MS).await, Err(CatalogError::UnknownToken(_))));
    assert_eq!(catalog.readers_of_private_zones().await.expect("readers").len(), 1);
}
