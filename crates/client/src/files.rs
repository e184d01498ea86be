//! What people and programs call: files, purges, zones, nodes, tokens.

use api::docs::{
    FileDoc, FileList, FilePatch, Locate, NodeList, PurgeAnswer, PurgeRequest, Status, VersionList, ZoneDoc, ZoneList,
};
use api::names::{Digest, FileId, FilePath, NodeName, Place, ZoneName};
use api::token::{NewToken, TokenAnswer, TokenList};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{Method, Request, StatusCode};
use net::Body;

use crate::{Client, ClientError, encode, query};

/// Where an upload goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upload {
    /// To this path: new, or a new version.
    Path(ZoneName, FilePath),
    /// A new version of this file.
    Id(FileId),
    /// A new file with a generated path; the name lends its extension.
    Generated(ZoneName, Option<String>),
}

/// What goes with an upload. The default declares nothing.
#[derive(Debug, Clone, Default)]
pub struct UploadMeta {
    /// `Content-Length`.
    pub size: Option<u64>,
    /// `Content-Type`.
    pub media_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Surrogate-Key`.
    pub tags: Option<String>,
    /// `If-Match`.
    pub if_match: Option<String>,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `Repr-Digest`, the whole field value (RFC 9530).
    pub repr_digest: Option<String>,
    /// Answer once every live edge has applied the event.
    pub wait: bool,
}

fn wait_query(wait: bool) -> String {
    query([("wait", wait.then(|| "edges".to_owned()))])
}
fn file_path(zone: &ZoneName, path: &FilePath) -> String {
    format!("/v1/zones/{zone}/files/{}", path.to_url())
}

impl Client {
    /// Uploads `body`. Answers whether the file is new, and the file.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload(&self, target: &Upload, meta: &UploadMeta, body: Body) -> Result<(bool, FileDoc), ClientError> {
        let (method, path) = match target {
            Upload::Path(zone, path) => (Method::PUT, file_path(zone, path) + &wait_query(meta.wait)),
            Upload::Id(id) => (Method::PUT, format!("/v1/files/{id}") + &wait_query(meta.wait)),
            Upload::Generated(zone, name) => {
                let pairs = [("name", name.clone()), ("wait", meta.wait.then(|| "edges".to_owned()))];
                (Method::POST, format!("/v1/zones/{zone}/files") + &query(pairs))
            }
        };
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base_url()));
        let fields: [(HeaderName, Option<String>); 7] = [
            (CONTENT_LENGTH, meta.size.map(|size| size.to_string())),
            (CONTENT_TYPE, meta.media_type.clone()),
            (CACHE_CONTROL, meta.cache_control.clone()),
            (HeaderName::from_static("surrogate-key"), meta.tags.clone()),
            (IF_MATCH, meta.if_match.clone()),
            (IF_NONE_MATCH, meta.if_none_match.clone()),
            (HeaderName::from_static("repr-digest"), meta.repr_digest.clone()),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = self.execute(request, body).await?;
        let created = response.status() == StatusCode::CREATED;
        Ok((created, self.decode(&path, response).await?))
    }

    /// The file at a path.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn file(&self, zone: &ZoneName, path: &FilePath) -> Result<FileDoc, ClientError> {
        self.get(&file_path(zone, path)).await
    }

    /// The file of an id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn file_by_id(&self, id: FileId) -> Result<FileDoc, ClientError> {
        self.get(&format!("/v1/files/{id}")).await
    }

    /// The newest versions of a file.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn versions(&self, id: FileId) -> Result<VersionList, ClientError> {
        self.get(&format!("/v1/files/{id}/versions")).await
    }

    /// One page of the files whose path begins with `prefix`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn files(
        &self,
        zone: &ZoneName,
        prefix: &str,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<FileList, ClientError> {
        let pairs = [
            ("prefix", (!prefix.is_empty()).then(|| prefix.to_owned())),
            ("limit", Some(limit.to_string())),
            ("cursor", cursor.map(str::to_owned)),
        ];
        self.get(&format!("/v1/zones/{zone}/files{}", query(pairs))).await
    }

    /// Deletes the file at a path, if it still has this digest (`None`: whatever it has).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_file(
        &self,
        zone: &ZoneName,
        path: &FilePath,
        if_digest: Option<Digest>,
        wait: bool,
    ) -> Result<PurgeAnswer, ClientError> {
        self.delete(&(file_path(zone, path) + &wait_query(wait)), if_digest).await
    }

    /// Deletes the file of an id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_file_by_id(&self, id: FileId, wait: bool) -> Result<PurgeAnswer, ClientError> {
        self.delete(&(format!("/v1/files/{id}") + &wait_query(wait)), None).await
    }

    async fn delete(&self, path: &str, if_digest: Option<Digest>) -> Result<PurgeAnswer, ClientError> {
        let mut request = Request::delete(format!("{}{path}", self.base_url()));
        if let Some(digest) = if_digest {
            request = request.header(IF_MATCH, digest.etag());
        }
        let response = self.execute(request, Body::empty()).await?;
        self.decode(path, response).await
    }

    /// Renames a file or changes what goes with it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch_file(&self, id: FileId, patch: &FilePatch, wait: bool) -> Result<FileDoc, ClientError> {
        self.json(Method::PATCH, &(format!("/v1/files/{id}") + &wait_query(wait)), Some(encode(patch)?)).await
    }

    /// Purges.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn purge(&self, request: &PurgeRequest) -> Result<PurgeAnswer, ClientError> {
        self.post("/v1/purge", request).await
    }

    /// All zones.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn zones(&self) -> Result<ZoneList, ClientError> {
        self.get("/v1/zones").await
    }

    /// One zone.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn zone(&self, name: &ZoneName) -> Result<ZoneDoc, ClientError> {
        self.get(&format!("/v1/zones/{name}")).await
    }

    /// Makes a zone or replaces its document.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_zone(&self, zone: &ZoneDoc) -> Result<ZoneDoc, ClientError> {
        self.json(Method::PUT, &format!("/v1/zones/{}", zone.name), Some(encode(zone)?)).await
    }

    /// Deletes a zone that has no files.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_zone(&self, name: &ZoneName) -> Result<(), ClientError> {
        self.tell::<()>(Method::DELETE, &format!("/v1/zones/{name}"), None).await
    }

    /// All edges.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn nodes(&self) -> Result<NodeList, ClientError> {
        self.get("/v1/nodes").await
    }

    /// Forgets an edge.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_node(&self, name: &NodeName) -> Result<(), ClientError> {
        self.tell::<()>(Method::DELETE, &format!("/v1/nodes/{name}"), None).await
    }

    /// Where a client at `place` (`None`: the default place) reads a file, and why there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn locate(&self, zone: &ZoneName, path: &FilePath, place: Option<Place>) -> Result<Locate, ClientError> {
        let pairs = [
            ("zone", Some(zone.to_string())),
            ("path", Some(path.to_string())),
            ("lat", place.map(|p| p.lat.to_string())),
            ("lng", place.map(|p| p.lng.to_string())),
        ];
        self.get(&format!("/v1/locate{}", query(pairs))).await
    }

    /// The state of the whole.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// All tokens, without secrets.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tokens(&self) -> Result<TokenList, ClientError> {
        self.get("/v1/tokens").await
    }

    /// Makes a token. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_token(&self, token: &NewToken) -> Result<TokenAnswer, ClientError> {
        self.post("/v1/tokens", token).await
    }

    /// Deletes a token: it opens nothing from now on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_token(&self, id: &str) -> Result<(), ClientError> {
        self.tell::<()>(Method::DELETE, &format!("/v1/tokens/{id}"), None).await
    }
}
