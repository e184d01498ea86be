//! What nodes call on control: `/v1/node/…`.

use api::Health;
use api::names::{Digest, FileId, FilePath, NodeName, ZoneName};
use api::node::{
    Ack, Blobs, Committed, Holders, Join, Placements, Resolved, Snapshot, UploadBegin, UploadCommit, UploadReady,
};
use http::{Method, Request};
use net::Body;

use crate::{Client, ClientError, query};

/// What to resolve: a file by its path or by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKey {
    /// By path.
    Path(ZoneName, FilePath),
    /// By id.
    Id(FileId),
}

impl FileKey {
    fn query(&self) -> [(&'static str, Option<String>); 3] {
        match self {
            Self::Path(zone, path) => {
                [("zone", Some(zone.to_string())), ("path", Some(path.to_string())), ("id", None)]
            }
            Self::Id(id) => [("zone", None), ("path", None), ("id", Some(id.to_string()))],
        }
    }
}

impl Client {
    /// Introduces an edge; answers the configuration that it becomes part of.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn join(&self, join: &Join) -> Result<Snapshot, ClientError> {
        self.post("/v1/node/join", join).await
    }

    /// The whole configuration.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        self.get("/v1/node/snapshot").await
    }

    /// Acknowledges events.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ack(&self, node: &NodeName, applied: u64) -> Result<(), ClientError> {
        self.tell(Method::POST, "/v1/node/ack", Some(&Ack { node: node.clone(), applied })).await
    }

    /// Reports what an edge holds.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn placements(&self, node: &NodeName, placements: &Placements) -> Result<(), ClientError> {
        let path = format!("/v1/node/placements{}", query([("node", Some(node.to_string()))]));
        self.tell(Method::POST, &path, Some(placements)).await
    }

    /// Which edges hold the current version of a file.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn holders(&self, key: &FileKey) -> Result<Holders, ClientError> {
        self.get(&format!("/v1/node/holders{}", query(key.query()))).await
    }

    /// The file behind a key. `client` is the `Authorization` of the reader; `as_node` says that a node asks for itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resolve(&self, key: &FileKey, client: Option<&str>, as_node: bool) -> Result<Resolved, ClientError> {
        let [zone, path, id] = key.query();
        let pairs = [zone, path, id, ("as_node", as_node.then(|| "true".to_owned()))];
        let path = format!("/v1/node/resolve{}", query(pairs));
        let mut request = Request::get(format!("{}{path}", self.base_url()));
        if let Some(client) = client {
            request = request.header(api::headers::CLIENT_AUTHORIZATION, client);
        }
        let response = self.execute(request, Body::empty()).await?;
        self.decode(&path, response).await
    }

    /// Whether an upload may begin.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload_begin(&self, begin: &UploadBegin) -> Result<UploadReady, ClientError> {
        self.post("/v1/node/uploads/begin", begin).await
    }

    /// Makes a blob that is in place a file's newest version.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload_commit(&self, commit: &UploadCommit) -> Result<Committed, ClientError> {
        self.post("/v1/node/uploads/commit", commit).await
    }

    /// Marks the blobs among `digests` that nothing refers to, and answers them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn blobs_condemn(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ClientError> {
        let answer: Blobs = self.post("/v1/node/blobs/condemn", &Blobs { digests }).await?;
        Ok(answer.digests)
    }

    /// Takes the marks away: the blobs are deleted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn blobs_forget(&self, digests: Vec<Digest>) -> Result<(), ClientError> {
        self.tell(Method::POST, "/v1/node/blobs/forget", Some(&Blobs { digests })).await
    }

    /// What is marked.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn blobs_condemned(&self) -> Result<Vec<Digest>, ClientError> {
        let answer: Blobs = self.get("/v1/node/blobs/condemned").await?;
        Ok(answer.digests)
    }

    /// Hands in the monitor's verdict.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_health(&self, health: &Health) -> Result<(), ClientError> {
        self.tell(Method::PUT, "/v1/node/health", Some(health)).await
    }
}
