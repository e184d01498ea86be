//! Bodies whose length nobody tells and which are too large for memory: stored in slices on disk as they come.

use std::path::Path;

use http::{Method, StatusCode};
use testbed::eventually;
use testbed::front::{Front, FrontSettings};
use testbed::media::{Media, content};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::films::{S, files_over, hit_range, take};

/// Of which a quarter may be held by bodies on their way in.
const MEMORY_BYTES: u64 = 16 << 20;

async fn small_front(origin: &str, folder: &Path) -> Front {
    Front::start(FrontSettings { memory_bytes: MEMORY_BYTES, ..FrontSettings::with_disk(origin, folder) }).await
}

async fn all(front: &Front, target: &str, version: u64, length: u64) {
    let answer = front.get(target).await;
    assert!(*answer.bytes() == content(target, version, 0..length), "{target}: {}", answer.header("cache-status"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_length_it_is_stored_in_slices_and_survives_a_restart() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let length = 24 * S + 77;
    let target = format!("/chunked/film/{length}");
    let front = small_front(&media.url, folder.path()).await;
    all(&front, &target, 1, length).await;
    let range = hit_range(&front, &target, 23 * S - 9, 24 * S + 9).await;
    assert!(range == content(&target, 1, 23 * S - 9..24 * S + 10));
    let head = front.ask(Method::HEAD, &target, &[]).await;
    assert_eq!((head.x_cache(), head.header("content-length")), ("HIT", length.to_string().as_str()));
    all(&front, &target, 1, length).await;
    let beyond = front.range(&target, length, length).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert!(front.metric("littoral_edge_memory_bytes") < (2 * S) as f64, "none of it lies in memory");
    front.kill().await;
    let front = small_front(&media.url, folder.path()).await;
    assert!(hit_range(&front, &target, 7, 2 * S).await == content(&target, 1, 7..2 * S + 1));
    all(&front, &target, 1, length).await;
    assert_eq!(media.requests().len(), 1, "it was asked for once");
    // What is damaged is asked for again, within the same request.
    for path in files_over(folder.path(), 4 * S) {
        let mut bytes = std::fs::read(&path).expect("read");
        let at = bytes.len() - usize::try_from(9 * S).expect("small");
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("written");
    }
    all(&front, &target, 1, length).await;
    assert!(media.requests().len() >= 2);
    front.ask("PURGE".parse().expect("method"), &target, &[]).await;
    media.change();
    all(&front, &target, 2, length).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_later_reads_the_beginning_from_disk_and_follows() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let length = 30 * S + 1;
    let target = format!("/chunked/film/{length}");
    let front = small_front(&media.url, folder.path()).await;
    media.allow(12 * S);
    let mut first = front.open(Method::GET, &target, &[]).await.into_body();
    let mut read = take(&mut first, 11 * S).await;
    // One that stays behind, one that comes in the middle; a range of it is answered with the whole, as long as nobody knows
    // how long that is.
    let mut behind = front.open(Method::GET, &target, &[]).await.into_body();
    let late = front.range(&target, 5, 9);
    let (late, ()) = tokio::join!(late, async {
        eventually("most of it has come", || async { media.sent() >= 12 * S }).await;
        media.allow(u64::MAX);
    });
    assert!(*late.bytes() == content(&target, 1, 0..length));
    read.extend(take(&mut first, u64::MAX).await);
    assert!(read == content(&target, 1, 0..length));
    front.ask("PURGE".parse().expect("method"), &target, &[]).await;
    assert!(take(&mut behind, u64::MAX).await == content(&target, 1, 0..length), "also after a purge");
    assert_eq!(media.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_purged_while_it_grows_is_read_to_its_end_and_the_next_is_stored() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let length = 20 * S;
    let target = format!("/chunked/film/{length}");
    let front = small_front(&media.url, folder.path()).await;
    media.allow(12 * S);
    let mut first = front.open(Method::GET, &target, &[]).await.into_body();
    let mut read = take(&mut first, 11 * S).await;
    front.ask("PURGE".parse().expect("method"), &target, &[]).await;
    media.change();
    media.allow(u64::MAX);
    let (next, rest) = tokio::join!(front.get(&target), take(&mut first, u64::MAX));
    read.extend(rest);
    assert!(read == content(&target, 1, 0..length));
    assert!(*next.bytes() == content(&target, 2, 0..length));
    assert!(hit_range(&front, &target, 19 * S, 20 * S).await == content(&target, 2, 19 * S..20 * S));
    assert_eq!(media.requests().len(), 2);
    eventually("one of them is on disk", || async { files_over(folder.path(), 4 * S).len() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_is_never_stored() {
    let folder = tempfile::tempdir().expect("folder");
    let url = scripted(|asked, stream| {
        Box::pin(async move {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=999\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            let chunk = vec![u8::try_from(asked).unwrap_or(0); usize::try_from(S).unwrap_or(0)];
            for _ in 0..9 {
                stream.write_all(format!("{S:x}\r\n").as_bytes()).await?;
                stream.write_all(&chunk).await?;
                stream.write_all(b"\r\n").await?;
            }
            // The first one ends without saying so.
            if asked > 0 { stream.write_all(b"0\r\n\r\n").await } else { Ok(()) }
        })
    })
    .await;
    let front = small_front(&url, folder.path()).await;
    let broken = front.get("/film").await;
    assert!(broken.body.is_err());
    eventually("it has left the disk", || async { files_over(folder.path(), 4 * S).is_empty() }).await;
    let whole = front.get("/film").await;
    assert_eq!(whole.x_cache(), "MISS");
    assert!(*whole.bytes() == vec![1; usize::try_from(9 * S).expect("small")]);
    assert!(hit_range(&front, "/film", 8 * S, 9 * S).await == vec![1; usize::try_from(S).expect("small")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_with_its_connection_is_stored_too() {
    let folder = tempfile::tempdir().expect("folder");
    let url = scripted(|_, stream| {
        Box::pin(async move {
            stream.write_all(b"HTTP/1.0 200 OK\r\nCache-Control: max-age=999\r\n\r\n").await?;
            stream.write_all(&vec![7; usize::try_from(6 * S + 5).unwrap_or(0)]).await
        })
    })
    .await;
    let front = small_front(&url, folder.path()).await;
    assert_eq!(front.get("/film").await.bytes().len() as u64, 6 * S + 5);
    assert!(hit_range(&front, "/film", 6 * S, 6 * S + 99).await == [7; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_largest_object_it_is_passed_on_and_not_stored() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let settings = FrontSettings {
        memory_bytes: MEMORY_BYTES,
        change: |zone| zone.max_object_bytes = 10 * S,
        ..FrontSettings::with_disk(&media.url, folder.path())
    };
    let front = Front::start(settings).await;
    for (length, stored) in [(10 * S, true), (10 * S + 1, false)] {
        let target = format!("/chunked/film/{length}");
        all(&front, &target, 1, length).await;
        if stored {
            assert!(hit_range(&front, &target, 9 * S, 10 * S).await == content(&target, 1, 9 * S..10 * S));
        } else {
            assert_eq!(front.range(&target, 0, 9).await.x_cache(), "MISS");
            eventually("only the other one is on disk", || async { files_over(folder.path(), 4 * S).len() == 1 }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_nothing_more_stops_nobody() {
    use edge::shelf::disk::{Failure, Operation, Rule};
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let settings = FrontSettings { memory_bytes: MEMORY_BYTES, ..FrontSettings::with_disk(&media.url, folder.path()) };
    let faults = std::sync::Arc::clone(&settings.cache.faults);
    let front = Front::start(settings).await;
    let length = 16 * S;
    let target = format!("/chunked/film/{length}");
    media.allow(8 * S);
    let mut body = front.open(Method::GET, &target, &[]).await.into_body();
    let mut behind = front.open(Method::GET, &target, &[]).await.into_body();
    let mut read = take(&mut body, 8 * S).await;
    let (operation, failure) = (Some(Operation::Write), Failure::Full);
    faults.add(Rule { operation, folder: None, failure, after: 0, times: u32::MAX });
    media.allow(u64::MAX);
    let (rest, behind) = tokio::join!(take(&mut body, u64::MAX), take(&mut behind, u64::MAX));
    read.extend(rest);
    assert!(read == content(&target, 1, 0..length) && behind == read);
    assert_eq!(front.range(&target, 0, 9).await.x_cache(), "MISS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_has_cut_off_is_gone_after_the_restart() {
    let (media, folder) = (Media::start().await, tempfile::tempdir().expect("folder"));
    let target = format!("/chunked/film/{}", 20 * S);
    let front = small_front(&media.url, folder.path()).await;
    media.allow(12 * S);
    let mut body = front.open(Method::GET, &target, &[]).await.into_body();
    take(&mut body, 11 * S).await;
    assert_eq!(files_over(folder.path(), 4 * S).len(), 1);
    // What a killed process leaves is what lies there at that moment: it cleans nothing up.
    let left = tempfile::tempdir().expect("folder");
    copy_folder(folder.path(), left.path());
    assert_eq!(files_over(left.path(), 4 * S).len(), 1);
    let after = small_front(&media.url, left.path()).await;
    eventually("its file is gone", || async { files_over(left.path(), 4 * S).is_empty() }).await;
    media.allow(u64::MAX);
    all(&after, &target, 1, 20 * S).await;
    assert_eq!(media.requests().len(), 2);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

type Scripted<'a> = std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>> + Send + 'a>>;

/// An origin that writes what it is told to, and closes. It is told how often it was asked before.
async fn scripted(script: for<'a> fn(usize, &'a mut tokio::net::TcpStream) -> Scripted<'a>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    tokio::spawn(async move {
        for asked in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = script(asked, &mut stream).await;
            let _ = stream.shutdown().await;
        }
    });
    url
}
