-- The catalog as it began. Times are milliseconds since the Unix epoch; ids are the 16 bytes of a UUID, digests the
-- 32 bytes of a BLAKE3. Text is compared by its bytes, which is the order of listings.

-- One row, made with the catalog and never changed.
CREATE TABLE meta (
    only_row   INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    catalog_id TEXT    NOT NULL
) STRICT;

-- One row. Whoever makes an event takes its number from here in the same transaction, so that numbers become visible
-- in their order and without gaps. sweep counts the calls that forgot collected blobs.
CREATE TABLE counter (
    only_row   INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    head       INTEGER NOT NULL,
    oldest     INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    sweep      INTEGER NOT NULL
) STRICT;
INSERT INTO counter (only_row, head, oldest, generation, sweep) VALUES (1, 0, 1, 0, 0);

-- document: the zone as JSON.
CREATE TABLE zones (
    name     TEXT NOT NULL PRIMARY KEY,
    document TEXT NOT NULL
) STRICT;

CREATE TABLE nodes (
    name TEXT NOT NULL PRIMARY KEY,
    lat  REAL NOT NULL,
    lng  REAL NOT NULL,
    url  TEXT NOT NULL
) STRICT;

-- Each file at its current version. tags: a JSON array of text.
CREATE TABLE files (
    id            BLOB    NOT NULL PRIMARY KEY,
    zone          TEXT    NOT NULL REFERENCES zones (name),
    path          TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    digest        BLOB    NOT NULL,
    size          INTEGER NOT NULL,
    media_type    TEXT    NOT NULL,
    cache_control TEXT,
    tags          TEXT    NOT NULL,
    event         INTEGER NOT NULL,
    modified_ms   INTEGER NOT NULL,
    UNIQUE (zone, path)
) STRICT;
CREATE INDEX files_by_digest ON files (digest);

-- The newest versions of each file, the current one included.
CREATE TABLE versions (
    file_id    BLOB    NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    version    INTEGER NOT NULL,
    digest     BLOB    NOT NULL,
    size       INTEGER NOT NULL,
    event      INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (file_id, version)
) STRICT, WITHOUT ROWID;

-- Which version of a file a node said it holds. A projection: nodes can tell it again.
CREATE TABLE placements (
    file_id BLOB    NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    node    TEXT    NOT NULL REFERENCES nodes (name) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    PRIMARY KEY (file_id, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX placements_by_node ON placements (node);

-- change: what the event says, as JSON.
CREATE TABLE events (
    seq    INTEGER NOT NULL PRIMARY KEY,
    at_ms  INTEGER NOT NULL,
    change TEXT    NOT NULL
) STRICT;

-- hash: BLAKE3 of the secret, hexadecimal. scopes: a JSON array of text.
CREATE TABLE tokens (
    id         TEXT    NOT NULL PRIMARY KEY,
    hash       TEXT    NOT NULL UNIQUE,
    label      TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER
) STRICT;

-- Blobs that are being collected, and those collected of late: forgotten is the sweep that ended it.
CREATE TABLE blobs (
    digest       BLOB    NOT NULL PRIMARY KEY,
    condemned_ms INTEGER NOT NULL,
    forgotten    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_by_forgotten ON blobs (forgotten);
