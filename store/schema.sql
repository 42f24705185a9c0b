-- The catalogue of a store, catalog.sqlite: all of it can be made again from runs/*/plan.jsonl and the sealed shards, but for
-- `label`, which comes from exports of labels.  Hashes are 32 hex digits.  Tokens are counted over the run: a shard's
-- token_base and the row in it.  Statistics are over rows that count (tokens/excluded is 0).
PRAGMA application_id = 0x4C415049; -- 'LAPI'
PRAGMA user_version = 1;

CREATE TABLE run(
  run_id INTEGER PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE CHECK(length(hash) = 32),
  plan TEXT NOT NULL,
  model TEXT NOT NULL,
  tokenizer TEXT NOT NULL,
  vocab INTEGER NOT NULL,
  value_bits INTEGER NOT NULL,
  provenance TEXT NOT NULL,
  plan_shards INTEGER, -- what the plan asks for; NULL: it is not there
  plan_tokens INTEGER,
  plan_documents INTEGER
) STRICT;

CREATE TABLE sae( -- one SAE of a run
  sae_id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES run,
  place INTEGER NOT NULL, -- in the head of each shard
  name TEXT NOT NULL,
  hash TEXT NOT NULL CHECK(length(hash) = 32),
  site TEXT NOT NULL,
  layer INTEGER NOT NULL,
  d_sae INTEGER NOT NULL,
  d_out INTEGER NOT NULL,
  n_values INTEGER NOT NULL, -- stored, rows that do not count among them
  UNIQUE(run_id, place)
) STRICT;

CREATE TABLE shard(
  run_id INTEGER NOT NULL REFERENCES run,
  number INTEGER NOT NULL,
  hash TEXT NOT NULL CHECK(length(hash) = 32), -- of the file
  bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, -- when this and bytes are still so, the file is taken for the one that was hashed
  token_base INTEGER NOT NULL,
  n_tokens INTEGER NOT NULL,
  n_counted INTEGER NOT NULL,
  n_documents INTEGER NOT NULL,
  n_values INTEGER NOT NULL,
  PRIMARY KEY(run_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE feature( -- a row once it fires where it counts; see store/tally.h
  sae_id INTEGER NOT NULL REFERENCES sae,
  feature INTEGER NOT NULL,
  n_active INTEGER NOT NULL,
  n_docs INTEGER NOT NULL,
  sum REAL NOT NULL,
  sumsq REAL NOT NULL,
  max REAL NOT NULL,
  hist BLOB NOT NULL, -- 64 counts, LEB128
  top BLOB NOT NULL,  -- up to 32 of {i64 token, i64 document, f32 value}, little-endian, strongest first
  rest BLOB,          -- what sum and sumsq, rounded once, leave of the exact sums of the shards' sums
  PRIMARY KEY(sae_id, feature)
) STRICT, WITHOUT ROWID;
CREATE INDEX feature_by_max ON feature(sae_id, max DESC);
CREATE INDEX feature_by_active ON feature(sae_id, n_active DESC);

CREATE TABLE passage( -- a document, or what one shard has of it
  passage_id INTEGER PRIMARY KEY, -- run_id << 44 | shard << 24 | its index in the shard: the order of the corpus
  run_id INTEGER NOT NULL REFERENCES run,
  document INTEGER NOT NULL, -- in the corpus
  key TEXT NOT NULL,
  hash TEXT NOT NULL,
  first_token INTEGER NOT NULL, -- which of the document's tokens is the first one here
  token INTEGER NOT NULL,       -- which of the run's
  n_tokens INTEGER NOT NULL,
  n_bytes INTEGER NOT NULL,
  is_utf8 INTEGER NOT NULL,
  text TEXT NOT NULL -- what is not UTF-8, and NUL, as U+FFFD; the bytes are in the shard
) STRICT;
CREATE INDEX passage_by_key ON passage(run_id, key);
CREATE INDEX passage_by_document ON passage(run_id, document);
CREATE INDEX passage_by_token ON passage(run_id, token);
CREATE VIRTUAL TABLE passage_fts USING fts5(text, content='passage', content_rowid='passage_id',
  tokenize='unicode61 remove_diacritics 0');

CREATE TABLE label(
  label_id INTEGER PRIMARY KEY,
  sae TEXT NOT NULL, -- its hash
  feature INTEGER NOT NULL,
  text TEXT NOT NULL,
  kind TEXT -- who says so; NULL: not known
) STRICT;
CREATE INDEX label_by_feature ON label(sae, feature);
CREATE VIRTUAL TABLE label_fts USING fts5(text, content='label', content_rowid='label_id', tokenize='porter unicode61');
