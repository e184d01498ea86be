//! Sweeps: what a purge has named leaves the disk, also when nobody asks for it again.
//!
//! Nothing that was purged is served, swept or not: every lookup compares marks. A sweep only gives the space back. It comes
//! after what names many things at once (a tag, a prefix, a host, a zone, another catalog): the index knows neither tags nor
//! URLs, so the head of every entry is read, which is too much for a single URL; that leaves when it is asked for, is evicted,
//! or by the next sweep. Eviction does not look for purged entries first: it would have to know of them, and a sweep is
//! through before room is short, as a rule.
//!
//! One sweep at a time, in steps of [`STEP_ENTRIES`], each followed by a rest of [`REST_TIMES`] what it took, so that it has a
//! tenth of a disk at most. A purge that comes meanwhile begins another one at its end. A file beside the marks ([`DUE_FILE`])
//! says that one is under way, so that one that a restart cuts off is begun anew. It has no lock of its own.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Change, PurgeTargets};
use shelf::disk::{Cursor, Disk, EntryId, Summary};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::marks::Began;
use crate::node::{HeadKey, Node};
use crate::persist::replace;
use crate::pull::stored::PageKey;
use crate::pull::thaw;
use crate::purges::Verdict;
use crate::shelved::{remove_body_of, thaw_for_tools};

/// Entries that a step looks at.
const STEP_ENTRIES: usize = 128;
/// How much longer a sweep rests after a step than that took.
const REST_TIMES: u32 = 9;
/// The least rest after a step, in milliseconds.
const MIN_REST_MS: u64 = 5;
/// How long a sweep waits for a disk that does not answer, in milliseconds.
const STUCK_MS: u64 = 10_000;

/// It is there while a sweep is due.
const DUE_FILE: &str = "sweep.due";

/// Asks for sweeps. Cheap to ask.
#[derive(Default)]
pub(crate) struct Sweeps {
    asked: watch::Sender<u64>,
}

impl Sweeps {
    /// What was stored before may have been purged, much of it at once.
    pub(crate) fn ask(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    /// The same, where a change names much at once.
    pub(crate) fn ask_after(&self, change: &Change) {
        if let Change::Purge(targets) = change {
            self.ask_for(targets);
        }
    }

    /// The same of targets.
    pub(crate) fn ask_for(&self, targets: &PurgeTargets) {
        let PurgeTargets { prefixes, tags, zones, hosts, soft, .. } = targets;
        let much = !prefixes.is_empty() || !tags.is_empty() || !zones.is_empty() || !hosts.is_empty();
        if much && !soft {
            self.ask();
        }
    }
}

/// Sweeps whenever that was asked for, also before now and in a former life, until `shutdown`.
pub(crate) async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    let mut asked = node.sweeps.asked.subscribe();
    let work = async {
        let due = with_due_file(&node, |file| file.try_exists()).await;
        if due == Some(true) || *asked.borrow() > 0 {
            asked.mark_changed();
        }
        while asked.changed().await.is_ok() {
            with_due_file(&node, |file| replace(file.parent().unwrap_or(file), DUE_FILE, b"")).await;
            sweep(&node).await;
            if asked.has_changed().is_ok_and(|again| !again) {
                with_due_file(&node, |file| std::fs::remove_file(file)).await;
            }
            node.metrics.sweeps.inc();
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// Does something to the file, where there is a disk to sweep and this process is in charge of the file's folder. What cannot be noted is not
/// known after a restart: then the disk is larger than it need be, and nothing else.
async fn with_due_file<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Option<T> {
    node.disk.as_ref()?;
    let file = node.marks.folder()?.join(DUE_FILE);
    let done = tokio::task::spawn_blocking(move || {
        work(&file)
            .inspect_err(|error| tracing::debug!(file = %file.display(), %error, "cannot note that a sweep is due"))
    });
    done.await.ok()?.ok()
}

async fn sweep(node: &Arc<Node>) {
    let Some(tier) = &node.disk else { return };
    tier.recalled().await;
    let mut at = Some(Cursor::default());
    while let Some(cursor) = at {
        let (begun, judge) = (Instant::now(), Arc::clone(node));
        let step = tier.blocking(move |disk| {
            let (page, next) = disk.list(cursor, STEP_ENTRIES);
            page.iter().for_each(|one| look_at(&judge, disk, one));
            next
        });
        let Some(next) = step.await else {
            tokio::time::sleep(Duration::from_millis(STUCK_MS)).await;
            continue;
        };
        at = next;
        let rest = begun.elapsed().saturating_mul(REST_TIMES).max(Duration::from_millis(MIN_REST_MS));
        tokio::time::sleep(rest).await;
    }
}

/// Reads the head of an entry; blocks. Removes it if it was purged.
fn look_at(node: &Node, disk: &Disk, one: &Summary) {
    let Ok(head) = disk.glance(one.id) else { return };
    let era = node.marks.era();
    if let Some(key) = PageKey::from_disk(&head.key) {
        // While its length is not known, whoever writes it sees to it.
        let Some(variant) = thaw(&head, one.id, None) else { return };
        if key.era == era && node.verdict_on_variant(&key, &variant) != Verdict::Hard {
            return;
        }
        remove(node, disk, one.id, Some(&key), None);
    } else if let Some(key) = HeadKey::from_disk(&head.key) {
        let Some(file) = thaw_for_tools(&head, one.id) else { return };
        let began = Began { event: file.began, local: file.local };
        if key.era == era && node.marks.verdict_on_file(file.identity(), began) != Verdict::Hard {
            return;
        }
        // A newer head may have the same body.
        if node.head(&key).is_none_or(|known| known.digest != file.digest) {
            remove_body_of(disk, one.id);
        }
        remove(node, disk, one.id, None, Some(&key));
    } else {
        return; // the body of a file: it leaves with its head
    }
    node.metrics.swept.inc();
}

/// Takes an entry off the disk, and tells what memory knows of it. Blocks.
pub(crate) fn remove(node: &Node, disk: &Disk, id: EntryId, page: Option<&PageKey>, file: Option<&HeadKey>) {
    disk.remove(id);
    if let Some(head) = file.and_then(|key| node.head(key)) {
        head.on_disk.lost(id);
    }
    let page = page.and_then(|key| node.page(key));
    for variant in page.iter().flat_map(|page| &page.variants) {
        variant.on_disk.lost(id);
    }
}
