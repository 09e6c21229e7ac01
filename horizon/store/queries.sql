-- Every statement of the store, by name. Python never builds SQL.

-- == Meta ==

-- name: add_migration
-- The record of a migration, in the same transaction.
INSERT INTO schema_migrations (version, name, applied_at) VALUES (:version, :name, :applied_at);

-- name: meta
SELECT value FROM horizon_meta WHERE key = :key;

-- name: set_meta
UPDATE horizon_meta SET value = :value WHERE key = :key;

-- name: table_names
SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%';

-- name: newest_commit_no
-- Also looks at the rows themselves: a program of the original may have inserted fills since.
SELECT max(value, coalesce((SELECT max(rowid) FROM fills), 0)) FROM horizon_meta WHERE key = 'commit_no';

-- name: is_renumbered
-- Whether a dump or a copy gave the fills new rowids. Renumbering keeps the order, so it shows in the last row if it shows at all.
SELECT EXISTS (
    SELECT 1 FROM fills
    WHERE rowid = (SELECT max(rowid) FROM fills) AND commit_no IS NOT NULL AND commit_no <> rowid
);

-- name: renumber_aside
-- Two steps, because a row may not take a number that another row still has.
UPDATE fills SET rowid = -commit_no WHERE commit_no IS NOT NULL;

-- name: renumber_back
UPDATE fills SET rowid = -rowid WHERE rowid < 0;

-- == Writing ==

-- name: insert_fill
-- The fields of Fill in their order, then what the store adds. Not INSERT OR IGNORE: that would hide a refused value as a duplicate.
INSERT INTO fills (
    fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, is_maker, multiplier,
    fee_currency, inserted_at, strategy, run_id, seq, commit_no, rowid
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?19)
ON CONFLICT (fill_id) DO NOTHING;

-- name: insert_duplicate
INSERT INTO duplicates (run_id, seq, fill_id) VALUES (?, ?, ?);

-- name: insert_order_event
-- The fields of OrderEvent in their order, then what the store adds.
INSERT INTO order_events (
    order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status,
    status_reason, exchange, created_at, recorded_at, strategy, run_id, seq
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: open_order
-- Parameters as in insert_order_event, then the place in the commit order.
INSERT INTO open_orders (
    order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status,
    status_reason, exchange, created_at, recorded_at, strategy, run_id, seq, opened_commit_no
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (order_id) DO UPDATE SET
    price = excluded.price, size = excluded.size, filled_size = excluded.filled_size, remaining_size = excluded.remaining_size,
    order_type = excluded.order_type, time_in_force = excluded.time_in_force, status = excluded.status,
    status_reason = excluded.status_reason, recorded_at = excluded.recorded_at, strategy = excluded.strategy,
    run_id = excluded.run_id, seq = excluded.seq;

-- name: change_open_order
-- Parameters as in insert_order_event. Changes nothing when the order is closed already.
UPDATE open_orders SET
    price = ?5, size = ?6, filled_size = ?7, remaining_size = ?8, order_type = ?9, time_in_force = ?10, status = ?11,
    status_reason = ?12, recorded_at = ?15, strategy = ?16, run_id = ?17, seq = ?18
WHERE order_id = ?1;

-- name: close_order
DELETE FROM open_orders WHERE order_id = ?;

-- name: advance_run
-- Moves a run's cursor and adds up what became of its records.
INSERT INTO run_cursors (
    run_id, strategy, committed_seq, last_commit_no, fills, order_events, orders, duplicates, dead_letters, snapshots_without_rows,
    snapshots_refused
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET
    committed_seq = excluded.committed_seq,
    last_commit_no = max(last_commit_no, excluded.last_commit_no),
    fills = fills + excluded.fills,
    order_events = order_events + excluded.order_events,
    orders = orders + excluded.orders,
    duplicates = duplicates + excluded.duplicates,
    dead_letters = dead_letters + excluded.dead_letters,
    snapshots_without_rows = snapshots_without_rows + excluded.snapshots_without_rows,
    snapshots_refused = snapshots_refused + excluded.snapshots_refused;

-- name: committed_seq
SELECT committed_seq FROM run_cursors WHERE run_id = ?;

-- name: strategy_of_run
SELECT strategy FROM run_cursors WHERE run_id = ?;

-- name: insert_gap
INSERT INTO run_gaps (run_id, from_seq, to_seq, reason, recorded_at) VALUES (?, ?, ?, ?, ?);

-- name: insert_risk_event
INSERT INTO risk_events (event_type, details, timestamp, strategy, run_id, seq) VALUES (?, ?, ?, ?, ?, ?);

-- name: start_run
INSERT INTO strategy_runs (
    run_id, strategy_name, exchange, started_at, config, strategy, seq, pid, status, recovered_commit_no
) VALUES (:run_id, :strategy_name, :exchange, :started_at, :config, :strategy, :seq, :pid, 'running', :recovered_commit_no);

-- name: end_run
-- Also ends a run that was taken for dead; never one that has ended.
UPDATE strategy_runs SET ended_at = :ended_at, status = 'ended', end_reason = :reason, ended_seq = :seq
WHERE run_id = :run_id AND ended_seq IS NULL;

-- name: end_died_run
UPDATE strategy_runs SET ended_at = :ended_at, status = 'died', end_reason = 'died' WHERE run_id = :run_id AND status = 'running';

-- == Snapshots ==

-- name: has_foreign_fills
-- Whether fills of other runs of the strategy were committed after what this run's recovery included.
SELECT EXISTS (
    SELECT 1 FROM run_cursors
    WHERE strategy = :strategy AND run_id <> :run_id
      AND last_commit_no > coalesce((SELECT recovered_commit_no FROM strategy_runs WHERE run_id = :run_id), 0)
);

-- name: newest_snapshot
SELECT commit_no, taken_at, first_id, last_id FROM newest_snapshots WHERE strategy = :strategy;

-- name: point_to_snapshot
INSERT INTO newest_snapshots (strategy, run_id, seq, commit_no, taken_at, first_id, last_id)
VALUES (:strategy, :run_id, :seq, :commit_no, :taken_at, :first_id, :last_id)
ON CONFLICT (strategy) DO UPDATE SET
    run_id = excluded.run_id, seq = excluded.seq, commit_no = excluded.commit_no, taken_at = excluded.taken_at,
    first_id = excluded.first_id, last_id = excluded.last_id;

-- name: insert_snapshot_row
INSERT INTO position_snapshots (
    snapshot_batch, market_id, side, size, avg_entry_price, realized_pnl, unrealized_pnl, token_id, exchange, strategy, run_id, seq,
    commit_no, exact_size, exact_cost, exact_realized_pnl, exact_fees, exact_base_fees, multiplier, mark
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: snapshot_rows
-- In the order of PositionRow's fields.
SELECT market_id, side, exchange, token_id, exact_size, exact_cost, exact_realized_pnl, exact_fees, exact_base_fees, multiplier, mark
FROM position_snapshots
WHERE id BETWEEN :first_id AND :last_id
ORDER BY id;

-- == Fills, for recovery and comparison: the fields of Fill in their order ==

-- name: fill_by_id
SELECT strategy, commit_no, fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, is_maker,
       multiplier, fee_currency
FROM fills
WHERE fill_id = :fill_id;

-- name: fills_between
-- A strategy's fills committed after one place up to another, in commit order.
SELECT fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, is_maker, multiplier,
       fee_currency
FROM fills
WHERE rowid > :after AND rowid <= :last AND strategy = :strategy
ORDER BY rowid;

-- name: last_commit_no_of
SELECT coalesce(max(last_commit_no), 0) FROM run_cursors WHERE strategy = :strategy;

-- name: fill_sizes_of_order
SELECT size FROM fills WHERE market_id = :market_id AND rowid > :after AND order_id = :order_id;

-- name: open_orders_of
SELECT run_id, opened_commit_no, order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type,
       time_in_force, status, status_reason, exchange, created_at, recorded_at
FROM open_orders
WHERE strategy = :strategy
ORDER BY rowid;

-- name: strategies
SELECT strategy FROM run_cursors
UNION SELECT strategy FROM strategy_runs WHERE strategy IS NOT NULL
UNION SELECT value FROM horizon_meta WHERE key = 'original_strategy' AND value IS NOT NULL;

-- == Views, newest first by commit order ==

-- name: newest_fills
-- A strategy's fills end at its last one: a strategy that rests is found without passing what others did since.
SELECT fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, inserted_at, strategy, run_id,
       seq, commit_no, is_maker, multiplier, fee_currency
FROM fills
WHERE rowid <= CASE WHEN :strategy IS NULL THEN 9223372036854775807 ELSE max(
          (SELECT coalesce(max(last_commit_no), 0) FROM run_cursors WHERE run_cursors.strategy = :strategy),
          (SELECT value FROM horizon_meta WHERE key = 'original_commit_no')) END
  AND (:strategy IS NULL OR strategy = :strategy)
  AND (:since IS NULL OR timestamp >= :since)
ORDER BY rowid DESC
LIMIT :limit;

-- name: newest_fills_of_market
SELECT fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, inserted_at, strategy, run_id,
       seq, commit_no, is_maker, multiplier, fee_currency
FROM fills
WHERE market_id = :market
  AND (:strategy IS NULL OR strategy = :strategy)
  AND (:since IS NULL OR timestamp >= :since)
ORDER BY rowid DESC
LIMIT :limit;

-- name: newest_open_orders
SELECT order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status,
       status_reason, exchange, created_at, recorded_at, strategy, run_id
FROM open_orders
WHERE (:strategy IS NULL OR strategy = :strategy)
  AND (:market IS NULL OR market_id = :market)
  AND (:since IS NULL OR recorded_at >= :since)
ORDER BY rowid DESC
LIMIT :limit;

-- name: newest_order_events
-- Read row by row until enough orders are seen.
SELECT order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status,
       status_reason, exchange, created_at, recorded_at, strategy, run_id
FROM order_events
WHERE (:strategy IS NULL OR strategy = :strategy)
  AND (:market IS NULL OR market_id = :market)
  AND (:since IS NULL OR recorded_at >= :since)
ORDER BY id DESC;

-- name: newest_runs
SELECT strategy_runs.run_id, strategy_runs.strategy, exchange, started_at, ended_at, config, status, end_reason, pid,
       coalesce(committed_seq, 0), coalesce(fills, 0), coalesce(order_events, 0), coalesce(orders, 0), coalesce(duplicates, 0),
       coalesce(dead_letters, 0), coalesce(snapshots_refused, 0)
FROM strategy_runs LEFT JOIN run_cursors USING (run_id)
WHERE (:strategy IS NULL OR strategy_runs.strategy = :strategy)
ORDER BY strategy_runs.rowid DESC
LIMIT :limit;

-- name: summary
SELECT strategy, count(*), sum(orders), sum(order_events), sum(fills),
       (SELECT count(*) FROM open_orders WHERE open_orders.strategy = run_cursors.strategy),
       sum(duplicates), sum(dead_letters),
       (SELECT coalesce(sum(to_seq - from_seq + 1), 0) FROM run_gaps
        WHERE run_id IN (SELECT run_id FROM run_cursors AS own WHERE own.strategy = run_cursors.strategy))
FROM run_cursors
GROUP BY strategy
ORDER BY strategy;

-- name: volumes
-- Reads every fill: for a summary at the end, not for a view that refreshes.
SELECT coalesce(strategy, ''), sum(abs(price) * size * coalesce(multiplier, 1.0)) FROM fills GROUP BY strategy;

-- == A database of the original: the page's columns only ==

-- name: original_strategy
SELECT strategy_name FROM strategy_runs ORDER BY started_at DESC, rowid DESC LIMIT 1;

-- name: original_snapshot
SELECT market_id, side, exchange, token_id, size, avg_entry_price, realized_pnl, snapshot_batch
FROM position_snapshots
WHERE id <= :last_id
  AND snapshot_batch = (SELECT max(snapshot_batch) FROM position_snapshots WHERE id <= :last_id)
ORDER BY id;

-- name: original_fills_since
-- The rule of the page: replay by trade time, from the snapshot's on.
SELECT fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange
FROM fills
WHERE rowid <= :last AND (:timestamp IS NULL OR timestamp >= :timestamp)
ORDER BY rowid;

-- name: original_fill_by_id
SELECT fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange FROM fills
WHERE fill_id = :fill_id;

-- name: original_newest_fills
SELECT fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, inserted_at
FROM fills
WHERE (:market IS NULL OR market_id = :market) AND (:since IS NULL OR timestamp >= :since)
ORDER BY rowid DESC
LIMIT :limit;

-- name: original_newest_order_events
SELECT order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status,
       status_reason, exchange, created_at, recorded_at
FROM order_events
WHERE (:market IS NULL OR market_id = :market) AND (:since IS NULL OR recorded_at >= :since)
ORDER BY id DESC;

-- name: original_newest_runs
SELECT run_id, strategy_name, exchange, started_at, ended_at, config
FROM strategy_runs
WHERE (:strategy IS NULL OR strategy_name = :strategy)
ORDER BY rowid DESC
LIMIT :limit;

-- name: original_summary
SELECT (SELECT count(*) FROM strategy_runs), (SELECT count(DISTINCT order_id) FROM order_events), (SELECT count(*) FROM order_events),
       (SELECT count(*) FROM fills);

-- name: original_volume
SELECT coalesce(sum(abs(price) * size), 0.0) FROM fills;

-- == Dead letters: these run in dlq.db ==

-- name: insert_dead_letter
-- The first capture stays: a repeated transaction finds the same bytes, and perhaps another reason.
INSERT INTO dead_letters (run_id, seq, strategy, kind, reason, payload, fill_id, captured_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, seq) DO NOTHING;

-- name: dead_letter_seqs
SELECT seq FROM dead_letters WHERE run_id = :run_id AND seq > :after ORDER BY seq;
