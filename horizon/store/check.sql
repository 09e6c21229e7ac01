-- What `horizon db check` and `horizon db stats` ask. Unlike the views, these read whole tables: page by page, up to a last row that
-- was taken down at the start, so that no read transaction stays open while trading goes on.

-- == Check: what is taken down at the start, in one transaction ==

-- name: check_all
SELECT integrity_check FROM pragma_integrity_check;

-- name: check_pages
-- Without comparing indexes with their tables.
SELECT quick_check FROM pragma_quick_check;

-- name: check_table
SELECT integrity_check FROM pragma_integrity_check(:table);

-- name: indexed_tables
-- The largest first: fills have most rows and most indexes.
SELECT DISTINCT tbl_name FROM sqlite_schema WHERE type = 'index' ORDER BY tbl_name <> 'fills';

-- name: last_rows
SELECT coalesce((SELECT max(rowid) FROM fills), 0), coalesce((SELECT max(id) FROM order_events), 0),
       coalesce((SELECT max(id) FROM position_snapshots), 0), coalesce((SELECT max(id) FROM risk_events), 0),
       coalesce((SELECT max(rowid) FROM duplicates), 0);

-- name: cursors
SELECT run_id, strategy, committed_seq, last_commit_no, fills, order_events, orders, duplicates, dead_letters, snapshots_without_rows,
       snapshots_refused
FROM run_cursors
ORDER BY rowid;

-- name: run_seqs
SELECT run_id, seq, ended_seq FROM strategy_runs;

-- name: gaps
SELECT run_id, from_seq, to_seq, reason, recorded_at, accepted_at, accepted_by FROM run_gaps ORDER BY recorded_at, run_id, from_seq;

-- name: open_order_ids
SELECT order_id FROM open_orders;

-- name: snapshot_pointers
-- A negative place is that of a snapshot which no longer counts.
SELECT strategy, commit_no, first_id, last_id FROM newest_snapshots WHERE commit_no >= 0 ORDER BY commit_no;

-- name: replayed
-- Dead letters that became rows or changed some, and when.
SELECT run_id, seq, strategy, at FROM operator_actions WHERE action = 'replay';

-- == Dead letters: this runs in dlq.db ==

-- name: letters_page
SELECT rowid, run_id, seq FROM dead_letters WHERE rowid > :after AND rowid <= :last ORDER BY rowid LIMIT :limit;

-- name: last_letter
SELECT coalesce(max(rowid), 0) FROM dead_letters;

-- name: letters
-- Newest first.
SELECT run_id, seq, strategy, kind, reason, payload, fill_id, captured_at, dismissed_at, dismissed_by, replayed_at
FROM dead_letters
WHERE (:strategy IS NULL OR strategy = :strategy)
  AND (:run_id IS NULL OR run_id = :run_id)
  AND (:all OR (dismissed_at IS NULL AND replayed_at IS NULL))
ORDER BY rowid DESC
LIMIT :limit;

-- name: letter_depths
SELECT strategy, count(*) FROM dead_letters WHERE dismissed_at IS NULL AND replayed_at IS NULL GROUP BY strategy;

-- == Check: page by page ==

-- name: fills_share
-- Of some markets, or of all others, NULL among them. `kind`: 1 for a sale, and 2 more for a fee in what was bought; NULL for a row that
-- is not quite as we write them, which is then read whole. A text is greater than every number and a blob than every text, so a
-- comparison also is a check of the type.
SELECT rowid, CASE WHEN commit_no IS rowid AND strategy IS NOT NULL AND run_id IS NOT NULL AND seq BETWEEN 1 AND 2147483647
                    AND fill_id > '' AND fill_id < x'' AND order_id > '' AND order_id < x''
                    AND size > 0.0 AND size <= 1e300 AND price BETWEEN -1e300 AND 1e300 AND fee BETWEEN -1e300 AND 1e300
                    AND timestamp BETWEEN -1e300 AND 1e300 AND multiplier BETWEEN -1e300 AND 1e300
              THEN CASE order_side WHEN 'buy' THEN 0 WHEN 'sell' THEN 1 END
                   + CASE fee_currency WHEN 'quote' THEN 0 WHEN 'base' THEN 2 END END AS kind,
       strategy, run_id, seq, order_id, exchange, market_id, side, price, size, fee, token_id, multiplier
FROM fills
WHERE rowid > :after AND rowid <= :last AND coalesce(+market_id IN (SELECT value FROM json_each(:markets)), 0) <> :others
ORDER BY rowid
LIMIT :limit;

-- name: fill_at
SELECT rowid, commit_no, strategy, run_id, seq, fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id,
       exchange, is_maker, multiplier, fee_currency
FROM fills
WHERE rowid = :rowid;

-- name: fill_places_page
SELECT rowid, coalesce(commit_no, rowid), fill_id FROM fills WHERE rowid > :after AND rowid <= :last ORDER BY rowid LIMIT :limit;

-- name: order_events_share
SELECT id, run_id, seq, order_id, status, filled_size
FROM order_events
WHERE id > :after AND id <= :last AND coalesce(+market_id IN (SELECT value FROM json_each(:markets)), 0) <> :others
ORDER BY id
LIMIT :limit;

-- name: fills_by_market
-- By the index alone: what a share of the check is made of. Only texts are dealt out: whatever else damage has left is with `all others`.
SELECT market_id, count(*) FROM fills WHERE market_id >= '' AND market_id < x'' GROUP BY market_id ORDER BY 2 DESC;

-- name: snapshots_page
SELECT id, strategy, run_id, seq, commit_no, exchange, market_id, side, token_id, exact_size, exact_cost, exact_realized_pnl,
       exact_fees, exact_base_fees, multiplier, size, avg_entry_price, realized_pnl, snapshot_batch
FROM position_snapshots
WHERE id > :after AND id <= :last
ORDER BY id
LIMIT :limit;

-- name: snapshot_seqs_page
SELECT id, run_id, seq FROM position_snapshots WHERE id > :after AND id <= :last ORDER BY id LIMIT :limit;

-- name: risk_events_page
SELECT id, run_id, seq FROM risk_events WHERE id > :after AND id <= :last ORDER BY id LIMIT :limit;

-- name: duplicates_page
SELECT rowid, run_id, seq FROM duplicates WHERE rowid > :after AND rowid <= :last ORDER BY rowid LIMIT :limit;

-- == What people decided ==

-- name: controls
SELECT strategy, kill_switch, kill_switch_at, kill_switch_by, hold, hold_at, hold_by FROM strategy_controls ORDER BY strategy;

-- == Stats ==

-- name: row_counts
SELECT (SELECT count(*) FROM fills), (SELECT count(*) FROM order_events), (SELECT count(*) FROM position_snapshots),
       (SELECT count(*) FROM risk_events), (SELECT count(*) FROM strategy_runs);

-- name: recorded_between
-- When the oldest and the newest row were written, by whatever table has it.
SELECT (SELECT inserted_at FROM fills ORDER BY rowid LIMIT 1), (SELECT recorded_at FROM order_events ORDER BY id LIMIT 1),
       (SELECT inserted_at FROM fills ORDER BY rowid DESC LIMIT 1), (SELECT recorded_at FROM order_events ORDER BY id DESC LIMIT 1);

-- name: run_states
SELECT coalesce(status, CASE WHEN ended_at IS NULL THEN 'running' ELSE 'ended' END), count(*) FROM strategy_runs GROUP BY 1 ORDER BY 1;

-- name: original_run_states
SELECT CASE WHEN ended_at IS NULL THEN 'running' ELSE 'ended' END, count(*) FROM strategy_runs GROUP BY 1 ORDER BY 1;
