//! One behaviour suite for every database that the catalog can be on. Each case takes a [`Home`], opens catalogs in it
//! and knows nothing of what is below; `behaviours!` makes a test of each case for one kind of home.

mod blobs;
mod config;
mod files;
mod log;
mod sqlite;

use api::node::{Conditions, UploadCommit, UploadTarget};
use api::{Digest, FileId, ZoneDoc};

use crate::{Catalog, CatalogError, CommittedFile, Settings, StoredFile};

/// Where a catalog under test lives. Opening it a second time finds what was in it.
pub(crate) trait Home: Sync {
    fn open_with(&self, settings: Settings) -> impl Future<Output = Catalog> + Send;

    fn open(&self) -> impl Future<Output = Catalog> + Send {
        self.open_with(Settings::default())
    }
}

/// Makes a test of each case, in a new home each.
macro_rules! behaviours {
    ($home:expr; $($topic:ident: $($case:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::suite::$topic::$case(&$home).await;
            }
        )+)+
    };
}
pub(crate) use behaviours;

const NOW_MS: u64 = 1_700_000_000_123;

fn parse<T: std::str::FromStr<Err = api::InvalidName>>(text: &str) -> T {
    text.parse().expect(text)
}

/// A catalog with the zone `files`.
async fn with_zone(home: &impl Home) -> Catalog {
    let catalog = home.open().await;
    catalog.put_zone(ZoneDoc::new(parse("files")), NOW_MS).await.expect("zone");
    catalog
}

fn at(path: &str) -> UploadTarget {
    UploadTarget::Path { zone: parse("files"), path: parse(path) }
}

fn by_id(id: FileId) -> UploadTarget {
    UploadTarget::Id { id }
}

/// An upload of `content` that declares nothing else, begun before any sweep.
fn upload(target: UploadTarget, content: &str) -> UploadCommit {
    UploadCommit {
        target,
        conditions: Conditions::default(),
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
        sweep: 0,
        media_type: None,
        cache_control: None,
        tags: Vec::new(),
        wait: false,
    }
}

async fn put(catalog: &Catalog, path: &str, content: &str) -> StoredFile {
    commit(catalog, upload(at(path), content)).await.expect(path).file
}

async fn commit(catalog: &Catalog, upload: UploadCommit) -> Result<CommittedFile, CatalogError> {
    catalog.commit_upload(upload, NOW_MS).await
}

async fn head(catalog: &Catalog) -> u64 {
    catalog.head().await.expect("head").head
}
