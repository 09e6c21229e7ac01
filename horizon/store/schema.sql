-- The five tables of the persistence page, letter for letter. What is ours comes by the migrations.

CREATE TABLE fills (
    fill_id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL,
    market_id TEXT NOT NULL,
    side TEXT NOT NULL,
    order_side TEXT NOT NULL,
    price REAL NOT NULL,
    size REAL NOT NULL,
    fee REAL NOT NULL DEFAULT 0.0,
    timestamp REAL NOT NULL,
    token_id TEXT,
    exchange TEXT NOT NULL DEFAULT '',
    inserted_at REAL NOT NULL
);

CREATE TABLE order_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id TEXT NOT NULL,
    market_id TEXT NOT NULL,
    side TEXT NOT NULL,
    order_side TEXT NOT NULL,
    price REAL NOT NULL,
    size REAL NOT NULL,
    filled_size REAL NOT NULL DEFAULT 0.0,
    remaining_size REAL NOT NULL,
    order_type TEXT NOT NULL,
    time_in_force TEXT NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT,
    exchange TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL,
    recorded_at REAL NOT NULL
);

CREATE TABLE position_snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    snapshot_batch REAL NOT NULL,
    market_id TEXT NOT NULL,
    side TEXT NOT NULL,
    size REAL NOT NULL,
    avg_entry_price REAL NOT NULL,
    realized_pnl REAL NOT NULL,
    unrealized_pnl REAL NOT NULL,
    token_id TEXT,
    exchange TEXT NOT NULL DEFAULT ''
);

CREATE TABLE risk_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_type TEXT NOT NULL,
    details TEXT,
    timestamp REAL NOT NULL
);

CREATE TABLE strategy_runs (
    run_id TEXT PRIMARY KEY,
    strategy_name TEXT NOT NULL,
    exchange TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    config TEXT
);
