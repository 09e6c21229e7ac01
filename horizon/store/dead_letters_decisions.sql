-- What a person decided about a dead letter. The letter stays, with its bytes.

ALTER TABLE dead_letters ADD COLUMN dismissed_at REAL;
ALTER TABLE dead_letters ADD COLUMN dismissed_by TEXT;
ALTER TABLE dead_letters ADD COLUMN replayed_at REAL;  -- its record is a row now, or its details are in the row of its fill
