-- dlq.db: records that can never be stored, with their bytes and the reason. A database of its own, so that the trading database
-- keeps the page's tables and a damaged one takes no dead letters with it.

CREATE TABLE dead_letters (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    strategy TEXT NOT NULL,
    kind TEXT NOT NULL,     -- undecodable, unstorable, conflict, amended
    reason TEXT NOT NULL,
    payload BLOB NOT NULL,
    fill_id TEXT,
    captured_at REAL NOT NULL,
    PRIMARY KEY (run_id, seq)
);
