-- Every statement of the store, by name. Python never builds SQL.

-- == Meta ==

-- name: add_migration
-- The record of a migration, in the same transaction.
INSERT INTO schema_migrations (version, name, applied_at) VALUES (:version, :name, :applied_at);

-- name: meta
SELECT value FROM horizon_meta WHERE key = :key;

-- name: set_meta
UPDATE horizon_meta SET value = :value WHERE key = :key;

-- name: probe
-- A commit that stores nothing of anybody's, to know whether the database takes rows.
INSERT INTO horizon_meta (key, value) VALUES ('probed_at', :now) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

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
    committed_seq = max(committed_seq, excluded.committed_seq),
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
-- A negative place: what it included has changed since, and everything is folded again.
SELECT commit_no, taken_at, first_id, last_id FROM newest_snapshots WHERE strategy = :strategy AND commit_no >= 0;

-- name: baselines
SELECT high_water_mark, daily_baseline FROM newest_snapshots WHERE strategy = :strategy;

-- name: point_to_snapshot
INSERT INTO newest_snapshots (
    strategy, run_id, seq, commit_no, taken_at, first_id, last_id, high_water_mark, daily_baseline
) VALUES (:strategy, :run_id, :seq, :commit_no, :taken_at, :first_id, :last_id, :high_water_mark, :daily_baseline)
ON CONFLICT (strategy) DO UPDATE SET
    run_id = excluded.run_id, seq = excluded.seq, commit_no = excluded.commit_no, taken_at = excluded.taken_at,
    first_id = excluded.first_id, last_id = excluded.last_id, high_water_mark = excluded.high_water_mark,
    daily_baseline = excluded.daily_baseline;

-- name: distrust_snapshot
-- Its positions no longer follow from the fills; what the risk checks knew still holds.
UPDATE newest_snapshots SET commit_no = -1, first_id = NULL, last_id = NULL WHERE strategy = :strategy;

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

-- name: fill_range_of
-- Between which places the strategy's fills behind one place lie: those of a run come behind what its recovery included, so what
-- others did while the strategy rested is not passed.
SELECT coalesce(min(max(:after, coalesce(recovered_commit_no, 0))), :after), coalesce(max(last_commit_no), 0)
FROM run_cursors LEFT JOIN strategy_runs USING (run_id)
WHERE run_cursors.strategy = :strategy AND last_commit_no > :after;

-- name: fill_sizes_of_order
-- By the order and not by the market: in a market with a million fills an old order may have none.
SELECT size FROM fills WHERE order_id = :order_id AND +market_id = :market_id AND rowid > :after;

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
          (SELECT iif(:strategy = (SELECT value FROM horizon_meta WHERE key = 'original_strategy'), value, 0)
           FROM horizon_meta WHERE key = 'original_commit_no')) END
  AND (:strategy IS NULL OR strategy = :strategy)
  AND (:since IS NULL OR timestamp >= :since)
ORDER BY rowid DESC
LIMIT :limit;

-- name: newest_fills_of_market
SELECT fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, inserted_at, strategy, run_id,
       seq, commit_no, is_maker, multiplier, fee_currency
FROM fills
WHERE market_id = :market
  AND rowid <= CASE WHEN :strategy IS NULL THEN 9223372036854775807 ELSE max(
          (SELECT coalesce(max(last_commit_no), 0) FROM run_cursors WHERE run_cursors.strategy = :strategy),
          (SELECT iif(:strategy = (SELECT value FROM horizon_meta WHERE key = 'original_strategy'), value, 0)
           FROM horizon_meta WHERE key = 'original_commit_no')) END
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
  AND (:since IS NULL OR ended_at IS NULL OR ended_at >= :since)
  AND (:market IS NULL OR run_id IN (SELECT run_id FROM fills WHERE market_id = :market))
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

-- name: original_strategies
-- As the upgrade will have it: the original's rows without a run belong to the default strategy.
SELECT strategy_name FROM strategy_runs
UNION SELECT 'default' WHERE NOT EXISTS (SELECT 1 FROM strategy_runs)
  AND (EXISTS (SELECT 1 FROM fills) OR EXISTS (SELECT 1 FROM position_snapshots) OR EXISTS (SELECT 1 FROM order_events));

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
  AND (:since IS NULL OR ended_at IS NULL OR ended_at >= :since)
  AND :market IS NULL  -- its fills do not say of which run they are
ORDER BY rowid DESC
LIMIT :limit;

-- name: original_summary
SELECT (SELECT count(*) FROM strategy_runs), (SELECT count(DISTINCT order_id) FROM order_events), (SELECT count(*) FROM order_events),
       (SELECT count(*) FROM fills);

-- name: original_volume
SELECT coalesce(sum(abs(price) * size), 0.0) FROM fills;

-- == What people decide ==

-- name: controls
SELECT strategy, kill_switch, hold, released_at FROM strategy_controls;

-- name: controls_of
SELECT kill_switch, hold, released_at FROM strategy_controls WHERE strategy = :strategy;

-- name: kill_switch_cleared_at
SELECT kill_switch_at FROM strategy_controls WHERE strategy = :strategy AND kill_switch IS NULL;

-- name: turn_on_kill_switch
-- One that is on keeps its first reason.
INSERT INTO strategy_controls (strategy, kill_switch, kill_switch_at, kill_switch_by) VALUES (:strategy, :reason, :at, :who)
ON CONFLICT (strategy) DO UPDATE SET
    kill_switch = excluded.kill_switch, kill_switch_at = excluded.kill_switch_at, kill_switch_by = excluded.kill_switch_by
WHERE kill_switch IS NULL;

-- name: turn_off_kill_switch
UPDATE strategy_controls SET kill_switch = NULL, kill_switch_at = :at, kill_switch_by = :who
WHERE strategy = :strategy AND kill_switch IS NOT NULL;

-- name: hold
INSERT INTO strategy_controls (strategy, hold, hold_at, hold_by) VALUES (:strategy, :reason, :at, :who)
ON CONFLICT (strategy) DO UPDATE SET hold = excluded.hold, hold_at = excluded.hold_at, hold_by = excluded.hold_by;

-- name: release
INSERT INTO strategy_controls (strategy, hold_at, hold_by, released_at) VALUES (:strategy, :at, :who, :at)
ON CONFLICT (strategy) DO UPDATE SET
    hold = NULL, hold_at = excluded.hold_at, hold_by = excluded.hold_by, released_at = excluded.released_at;

-- name: gaps_of
-- Those that nobody has accepted, oldest first.
SELECT run_id, from_seq, to_seq, reason, recorded_at
FROM run_cursors CROSS JOIN run_gaps USING (run_id)
WHERE strategy = :strategy AND accepted_at IS NULL
ORDER BY recorded_at, run_id, from_seq;

-- name: gaps
SELECT strategy, run_id, from_seq, to_seq, reason, run_gaps.recorded_at
FROM run_gaps JOIN run_cursors USING (run_id)
WHERE accepted_at IS NULL
ORDER BY recorded_at, run_id, from_seq;

-- name: accept_gaps
UPDATE run_gaps SET accepted_at = :at, accepted_by = :who WHERE run_id = :run_id AND accepted_at IS NULL;

-- name: open_order_by_id
-- The strategy, then as open_orders_of.
SELECT strategy, run_id, opened_commit_no, order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type,
       time_in_force, status, status_reason, exchange, created_at, recorded_at
FROM open_orders
WHERE order_id = :order_id;

-- name: amend_fill
UPDATE fills SET
    fee = :fee, timestamp = :timestamp, token_id = :token_id, is_maker = :is_maker, multiplier = :multiplier,
    fee_currency = :fee_currency
WHERE fill_id = :fill_id;

-- name: uncount_dead_letter
-- What was one is a row now.
UPDATE run_cursors SET dead_letters = dead_letters - 1 WHERE run_id = :run_id;

-- name: add_action
INSERT INTO operator_actions (id, at, who, action, strategy, reason, details, run_id, seq)
VALUES (:id, :at, :who, :action, :strategy, :reason, :details, :run_id, :seq);

-- name: action_by_id
SELECT details FROM operator_actions WHERE id = :id;

-- name: replayed_at
SELECT at FROM operator_actions WHERE action = 'replay' AND run_id = :run_id AND seq = :seq;

-- == Dead letters: these run in dlq.db ==

-- name: insert_dead_letter
-- The first capture stays: a repeated transaction finds the same bytes, and perhaps another reason.
INSERT INTO dead_letters (run_id, seq, strategy, kind, reason, payload, fill_id, captured_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, seq) DO NOTHING;

-- name: dead_letter_seqs
SELECT seq FROM dead_letters WHERE run_id = :run_id AND seq > :after ORDER BY seq;

-- name: dead_letter
SELECT run_id, seq, strategy, kind, reason, payload, fill_id, captured_at, dismissed_at, dismissed_by, replayed_at
FROM dead_letters
WHERE run_id = :run_id AND seq = :seq;

-- name: mark_replayed
UPDATE dead_letters SET replayed_at = :at WHERE run_id = :run_id AND seq = :seq AND replayed_at IS NULL;

-- name: mark_dismissed
UPDATE dead_letters SET dismissed_at = :at, dismissed_by = :who WHERE run_id = :run_id AND seq = :seq AND dismissed_at IS NULL;
