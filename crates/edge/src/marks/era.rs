//! The era, kept apart from the marks so that it outlives their loss.
//!
//! `era.json` is [`EraDoc`], replaced as a whole. Without it and without marks a new era begins, and nothing that was
//! stored before is found again.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::persist::replace;

const FORMAT: u32 = 1;
const FILE: &str = "era.json";
/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// What tells the lives of an edge's store apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EraDoc {
    format: u32,
    /// A random number; another one for every catalog.
    pub(super) era: u64,
    /// The catalog, where one is known.
    pub(super) catalog_id: Option<String>,
    /// No local number beyond it has been given out, so that numbers can go on above it when the marks are lost and the
    /// clock has been set back.
    pub(super) reserved: u64,
}

impl EraDoc {
    pub(super) fn new(era: u64, catalog_id: Option<String>, reserved: u64) -> Self {
        Self { format: FORMAT, era, catalog_id, reserved }
    }

    /// Nothing: there is none, or none that can be understood. Blocks.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let path = folder.join(FILE);
        if std::fs::metadata(&path).ok()?.len() > MAX_FILE_BYTES {
            return None;
        }
        let doc: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        (doc.format == FORMAT).then_some(doc)
    }

    /// Blocks.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        replace(folder, FILE, &serde_json::to_vec(self)?)
    }
}
