-- What people decide beside the road of a record: kill switches, holds, accepted gaps, and who did what and why.

-- What each strategy may do. No row: everything. `_at` and `_by` tell of the last change, on or off.
CREATE TABLE strategy_controls (
    strategy TEXT PRIMARY KEY,
    kill_switch TEXT,  -- why trading is forbidden; NULL: it is not. A latch: a restart does not clear it
    kill_switch_at REAL,
    kill_switch_by TEXT,
    hold TEXT,         -- why the strategy may cancel but not order
    hold_at REAL,
    hold_by TEXT,
    released_at REAL   -- when a person last said that it may order again
);

-- Every command that was done. The id is the command's: one that is sent twice is done once.
CREATE TABLE operator_actions (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    strategy TEXT NOT NULL,
    reason TEXT NOT NULL,
    details TEXT NOT NULL,  -- what was done, as the person was told
    run_id TEXT,            -- of the dead letter or the gap
    seq INTEGER             -- of the dead letter
);

-- A dead letter is replayed once, whatever becomes of the mark in dlq.db, which cannot be written in the same transaction.
CREATE UNIQUE INDEX operator_actions_replay ON operator_actions (run_id, seq) WHERE action = 'replay';

ALTER TABLE run_gaps ADD COLUMN accepted_at REAL;
ALTER TABLE run_gaps ADD COLUMN accepted_by TEXT;

-- As the risk checks had them when the snapshot was taken.
ALTER TABLE newest_snapshots ADD COLUMN high_water_mark REAL;
ALTER TABLE newest_snapshots ADD COLUMN daily_baseline REAL;

-- For recovery: what an open order has been filled, without reading its market's history.
CREATE INDEX fills_order ON fills (order_id);
