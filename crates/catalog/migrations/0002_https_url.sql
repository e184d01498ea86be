-- Where clients reach a node over TLS; NULL: nowhere.
ALTER TABLE nodes ADD COLUMN https_url TEXT;
