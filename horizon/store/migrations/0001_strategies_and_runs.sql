-- Several strategies in one database: who recorded a row, in which run, at which place in the commit order.
-- Every column is nullable or has a default, so the INSERTs and SELECTs of the original still work.

CREATE TABLE schema_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at REAL NOT NULL
);

CREATE TABLE horizon_meta (
    key TEXT PRIMARY KEY,
    value
);

-- The original knows one book per file: what it left belongs to the strategy that ran last. The two marks say which rows those are.
INSERT INTO horizon_meta (key, value) VALUES
    ('database_id', lower(hex(randomblob(16)))),
    ('commit_no', (SELECT coalesce(max(rowid), 0) FROM fills)),
    ('snapshot_batch', (SELECT coalesce(max(snapshot_batch), 0.0) FROM position_snapshots)),
    ('original_commit_no', (SELECT coalesce(max(rowid), 0) FROM fills)),
    ('original_snapshot_id', (SELECT coalesce(max(id), 0) FROM position_snapshots)),
    ('original_strategy', (
        SELECT coalesce((SELECT strategy_name FROM strategy_runs ORDER BY started_at DESC, rowid DESC LIMIT 1), 'default')
        WHERE EXISTS (SELECT 1 FROM fills) OR EXISTS (SELECT 1 FROM position_snapshots) OR EXISTS (SELECT 1 FROM order_events)
    ));

ALTER TABLE fills ADD COLUMN strategy TEXT;
ALTER TABLE fills ADD COLUMN run_id TEXT;
ALTER TABLE fills ADD COLUMN seq INTEGER;
ALTER TABLE fills ADD COLUMN commit_no INTEGER;  -- equal to the rowid, and safe in a dump that renumbers rows
ALTER TABLE fills ADD COLUMN is_maker INTEGER;
ALTER TABLE fills ADD COLUMN multiplier REAL;
ALTER TABLE fills ADD COLUMN fee_currency TEXT;

ALTER TABLE order_events ADD COLUMN strategy TEXT;
ALTER TABLE order_events ADD COLUMN run_id TEXT;
ALTER TABLE order_events ADD COLUMN seq INTEGER;

-- The exact_* columns are the fold's state as decimal text; the page's REAL columns are its rounded view.
ALTER TABLE position_snapshots ADD COLUMN strategy TEXT;
ALTER TABLE position_snapshots ADD COLUMN run_id TEXT;
ALTER TABLE position_snapshots ADD COLUMN seq INTEGER;
ALTER TABLE position_snapshots ADD COLUMN commit_no INTEGER;  -- the newest fill that the snapshot includes
ALTER TABLE position_snapshots ADD COLUMN exact_size TEXT;
ALTER TABLE position_snapshots ADD COLUMN exact_cost TEXT;
ALTER TABLE position_snapshots ADD COLUMN exact_realized_pnl TEXT;
ALTER TABLE position_snapshots ADD COLUMN exact_fees TEXT;
ALTER TABLE position_snapshots ADD COLUMN exact_base_fees TEXT;
ALTER TABLE position_snapshots ADD COLUMN multiplier REAL;
ALTER TABLE position_snapshots ADD COLUMN mark REAL;

ALTER TABLE risk_events ADD COLUMN strategy TEXT;
ALTER TABLE risk_events ADD COLUMN run_id TEXT;
ALTER TABLE risk_events ADD COLUMN seq INTEGER;

ALTER TABLE strategy_runs ADD COLUMN strategy TEXT;
ALTER TABLE strategy_runs ADD COLUMN seq INTEGER;        -- of RunStarted
ALTER TABLE strategy_runs ADD COLUMN ended_seq INTEGER;  -- of RunEnded
ALTER TABLE strategy_runs ADD COLUMN pid INTEGER;
ALTER TABLE strategy_runs ADD COLUMN status TEXT;        -- running, ended, died
ALTER TABLE strategy_runs ADD COLUMN end_reason TEXT;
ALTER TABLE strategy_runs ADD COLUMN recovered_commit_no INTEGER;

-- How far each run is committed, and what became of its records. committed_seq is the sum of the counts, of the rows in
-- position_snapshots (one seq each), risk_events and strategy_runs, and of the ranges in run_gaps.
CREATE TABLE run_cursors (
    run_id TEXT PRIMARY KEY,
    strategy TEXT NOT NULL,
    committed_seq INTEGER NOT NULL,
    last_commit_no INTEGER NOT NULL DEFAULT 0,          -- of the run's newest fill
    fills INTEGER NOT NULL DEFAULT 0,
    order_events INTEGER NOT NULL DEFAULT 0,
    orders INTEGER NOT NULL DEFAULT 0,                  -- order events with status new
    duplicates INTEGER NOT NULL DEFAULT 0,
    dead_letters INTEGER NOT NULL DEFAULT 0,
    snapshots_without_rows INTEGER NOT NULL DEFAULT 0,  -- equal to the one before, or of no positions
    snapshots_refused INTEGER NOT NULL DEFAULT 0        -- another run's fills had come between
);

CREATE INDEX run_cursors_strategy ON run_cursors (strategy);

-- Fills that were there already, with the same content.
CREATE TABLE duplicates (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    fill_id TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
);

-- Frames that a damaged journal could not give back.
CREATE TABLE run_gaps (
    run_id TEXT NOT NULL,
    from_seq INTEGER NOT NULL,
    to_seq INTEGER NOT NULL,
    reason TEXT NOT NULL,
    recorded_at REAL NOT NULL,
    PRIMARY KEY (run_id, from_seq)
);

-- The newest event of every order that is open. `new` opens an order, a terminal status closes it for good.
CREATE TABLE open_orders (
    order_id TEXT PRIMARY KEY,
    market_id TEXT NOT NULL,
    side TEXT NOT NULL,
    order_side TEXT NOT NULL,
    price REAL NOT NULL,
    size REAL NOT NULL,
    filled_size REAL NOT NULL,
    remaining_size REAL NOT NULL,
    order_type TEXT NOT NULL,
    time_in_force TEXT NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT,
    exchange TEXT NOT NULL,
    created_at REAL NOT NULL,
    recorded_at REAL NOT NULL,
    strategy TEXT,
    run_id TEXT,
    seq INTEGER,
    opened_commit_no INTEGER NOT NULL  -- its fills come after this place in the commit order
);

-- Where each strategy's newest snapshot lies. It has no rows when the strategy had no positions.
CREATE TABLE newest_snapshots (
    strategy TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    commit_no INTEGER NOT NULL,
    taken_at REAL NOT NULL,
    first_id INTEGER,
    last_id INTEGER
);

UPDATE strategy_runs SET strategy = strategy_name, status = CASE WHEN ended_at IS NULL THEN 'died' ELSE 'ended' END;
UPDATE fills SET strategy = (SELECT value FROM horizon_meta WHERE key = 'original_strategy');
UPDATE order_events SET strategy = (SELECT value FROM horizon_meta WHERE key = 'original_strategy');
UPDATE position_snapshots SET strategy = (SELECT value FROM horizon_meta WHERE key = 'original_strategy');
UPDATE risk_events SET strategy = (SELECT value FROM horizon_meta WHERE key = 'original_strategy');

INSERT INTO open_orders
SELECT order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status,
       status_reason, exchange, created_at, recorded_at, strategy, NULL, NULL, 0
FROM order_events
WHERE id IN (SELECT max(id) FROM order_events GROUP BY order_id)
  AND order_id NOT IN (SELECT order_id FROM order_events WHERE status NOT IN ('new', 'submitted', 'accepted', 'partially_filled'));

CREATE INDEX fills_market ON fills (market_id);
