//! temp
#![allow(clippy::all, clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]
use api::node::*;
use std::time::Instant;
fn main() { tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run()) }
async fn run() {
    let dir = std::env::args().nth(1).unwrap();
    let path = std::path::Path::new(&dir).join("m.db");
    let c = catalog::Catalog::open(&path, Default::default()).await.unwrap();
    c.put_zone(api::ZoneDoc::new("files".parse().unwrap()), 1).await.unwrap();
    c.join(api::NodeDoc{name:"a".parse().unwrap(),place:api::Place::new(0.,0.).unwrap(),url:"http://x".into()}, true, 1).await.unwrap();
    let up = |p: String, n: u64| UploadCommit { target: UploadTarget::Path{zone:"files".parse().unwrap(), path:p.parse().unwrap()}, conditions: Default::default(), digest: api::Digest::of(&n.to_le_bytes()), size: n, sweep:0, media_type: Some("text/html".into()), cache_control: None, tags: vec![], wait:false};
    let mut t = vec![];
    let mut ids = vec![];
    for n in 0..10_000u64 { let s = Instant::now(); let f = c.commit_upload(up(format!("docs/page-number-{n}.html"), n), n).await.unwrap(); t.push(s.elapsed().as_secs_f64()*1e3); ids.push(Placement{id:f.file.id,version:1}); }
    show("new files", t);
    let mut t = vec![];
    for n in 0..2_000u64 { let s = Instant::now(); c.commit_upload(up(format!("docs/page-number-{}.html", n%100), n), n).await.unwrap(); t.push(s.elapsed().as_secs_f64()*1e3); }
    show("updates", t);
    let s = Instant::now();
    let hs: Vec<_> = (0..8).map(|w| { let c = c.clone(); let ups: Vec<_> = (0..250).map(|n| up(format!("w{w}/{n}"), n)).collect(); tokio::spawn(async move { for u in ups { c.commit_upload(u, 1).await.unwrap(); } }) }).collect();
    for h in hs { h.await.unwrap(); }
    println!("8 writers x 250: {:.3} ms each", s.elapsed().as_secs_f64()*1e3/2000.0);
    for chunk in [5000usize] { let s = Instant::now(); c.apply_placements(&"a".parse().unwrap(), Placements{added: ids[..chunk].to_vec(), removed: vec![]}, 1).await.unwrap(); println!("placements {chunk}: {:?}", s.elapsed()); }
    let s = Instant::now(); c.held_files().await.unwrap(); println!("held {:?}", s.elapsed());
    let s = Instant::now(); c.totals().await.unwrap(); println!("totals {:?}", s.elapsed());
    let s = Instant::now(); c.list(&"files".parse().unwrap(), "", 1000, None).await.unwrap(); println!("list 1000 {:?}", s.elapsed());
    let s = Instant::now(); for n in 0..1000 { c.file(&"files".parse().unwrap(), &format!("docs/page-number-{n}.html").parse().unwrap()).await.unwrap(); } println!("get {:?} each", s.elapsed()/1000);
    let digests: Vec<_> = (0..1000u64).map(|n| api::Digest::of(&(n+9_500).to_le_bytes())).collect();
    let s = Instant::now(); let k = c.condemn_blobs(digests, 1).await.unwrap(); println!("condemn 1000 ({}) {:?}", k.len(), s.elapsed());
    drop(c);
    std::process::Command::new("cp").args(["-r", &dir, &format!("{dir}.copy")]).status().unwrap();
    let s = Instant::now();
    let c2 = catalog::Catalog::open(&std::path::Path::new(&format!("{dir}.copy")).join("m.db"), Default::default()).await.unwrap();
    println!("open after crash copy {:?}", s.elapsed());
    c2.close().await;
    let s = Instant::now();
    let c2 = catalog::Catalog::open(&std::path::Path::new(&format!("{dir}.copy")).join("m.db"), Default::default()).await.unwrap();
    println!("open clean {:?}", s.elapsed());
    c2.close().await;
}
fn show(what: &str, mut t: Vec<f64>) { t.sort_by(f64::total_cmp); let n=t.len(); println!("{what}: p50 {:.2} p99 {:.2} max {:.2} ms", t[n/2], t[n*99/100], t[n-1]); }
