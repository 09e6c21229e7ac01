/* How many events a second SQLite takes from one process with prepared statements: the ceiling over every writer in any language.
 *
 * usage: ceiling DATABASE EVENTS BATCH ALL PRAGMAS INSERT_FILL INSERT_ORDER_EVENT CLOSE_ORDER ADVANCE_RUN SET_META
 *
 * The database and the statements are the product's own: bench/writer_throughput.py makes the one and passes the others. Events come in
 * fours, as in bench/events.py: new, accepted, fill, filled. Everything is made before the clock starts, so timed is SQLite alone: bind,
 * step, commit, the checkpoints that SQLite makes by itself, and a last one. With ALL = 1 each transaction also does what the writer keeps beside the
 * rows when its batch holds whole orders: closed orders, the run's cursor, the place in the commit order.
 *
 * Prints the seconds, the seconds of processor time, and the version of SQLite.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUN_ID "0193b3a5-6c4e-7d3a-9c1e-0123456789ab"
#define ID_SIZE 64

static sqlite3 *db;

static void fail(const char *what) {
    fprintf(stderr, "ceiling: %s: %s\n", what, db ? sqlite3_errmsg(db) : "");
    exit(1);
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void run(const char *sql) {
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) fail(sql);
}

static sqlite3_stmt *prepared(const char *sql, int parameters) {
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK) fail(sql);
    if (sqlite3_bind_parameter_count(statement) != parameters) {
        fprintf(stderr, "ceiling: the store has changed this statement, ceiling.c has to follow: %s\n", sql);
        exit(1);
    }
    return statement;
}

static void text(sqlite3_stmt *statement, int place, const char *value) {
    sqlite3_bind_text(statement, place, value, -1, SQLITE_STATIC);
}

static void step(sqlite3_stmt *statement) {
    if (sqlite3_step(statement) != SQLITE_DONE) fail(sqlite3_sql(statement));
    sqlite3_reset(statement);
}

/* The parameters of insert_fill: the fields of Fill, then what the store adds. */
static void insert_fill(sqlite3_stmt *s, const char *fill_id, const char *order_id, double at, long seq, long commit_no) {
    text(s, 1, fill_id);
    text(s, 2, order_id);
    text(s, 3, "market");
    text(s, 4, "long");
    text(s, 5, "buy");
    sqlite3_bind_double(s, 6, 100.25);
    sqlite3_bind_double(s, 7, 1.5);
    sqlite3_bind_double(s, 8, 0.15);
    sqlite3_bind_double(s, 9, at);
    sqlite3_bind_null(s, 10);
    text(s, 11, "paper");
    sqlite3_bind_int(s, 12, 0);
    sqlite3_bind_double(s, 13, 1.0);
    text(s, 14, "quote");
    sqlite3_bind_double(s, 15, at);
    text(s, 16, "ceiling");
    text(s, 17, RUN_ID);
    sqlite3_bind_int64(s, 18, seq);
    sqlite3_bind_int64(s, 19, commit_no);
    step(s);
}

/* The parameters of insert_order_event: the fields of OrderEvent, then what the store adds. */
static void insert_order_event(sqlite3_stmt *s, const char *order_id, const char *status, double filled, double at, long seq) {
    text(s, 1, order_id);
    text(s, 2, "market");
    text(s, 3, "long");
    text(s, 4, "buy");
    sqlite3_bind_double(s, 5, 100.25);
    sqlite3_bind_double(s, 6, 1.5);
    sqlite3_bind_double(s, 7, filled);
    sqlite3_bind_double(s, 8, 1.5 - filled);
    text(s, 9, "limit");
    text(s, 10, "gtc");
    text(s, 11, status);
    sqlite3_bind_null(s, 12);
    text(s, 13, "paper");
    sqlite3_bind_double(s, 14, at);
    sqlite3_bind_double(s, 15, at);
    text(s, 16, "ceiling");
    text(s, 17, RUN_ID);
    sqlite3_bind_int64(s, 18, seq);
    step(s);
}

static void close_order(sqlite3_stmt *s, const char *order_id) {
    text(s, 1, order_id);
    step(s);
}

/* The parameters of advance_run are the run, its strategy, and counts. */
static void advance_run(sqlite3_stmt *s, long seq, long commit_no, long fills, long order_events) {
    text(s, 1, RUN_ID);
    text(s, 2, "ceiling");
    sqlite3_bind_int64(s, 3, seq);
    sqlite3_bind_int64(s, 4, commit_no);
    sqlite3_bind_int64(s, 5, fills);
    sqlite3_bind_int64(s, 6, order_events);
    sqlite3_bind_int64(s, 7, fills);
    for (int place = 8; place <= 11; place++) sqlite3_bind_int(s, place, 0);
    step(s);
}

static void set_commit_no(sqlite3_stmt *s, long commit_no) {
    sqlite3_bind_int64(s, 1, commit_no);
    text(s, 2, "commit_no");
    step(s);
}

int main(int count, char **values) {
    if (count != 11) {
        fprintf(stderr, "ceiling: wrong number of arguments; bench/writer_throughput.py knows them\n");
        return 2;
    }
    long orders = atol(values[2]) / 4, batch = atol(values[3]) / 4;
    int all = atoi(values[4]);
    char *order_ids = malloc(orders * ID_SIZE), *fill_ids = malloc(orders * ID_SIZE);
    if (!order_ids || !fill_ids) fail("no memory");
    for (long n = 0; n < orders; n++) {
        snprintf(order_ids + n * ID_SIZE, ID_SIZE, "%s-%08ld", RUN_ID, n);
        snprintf(fill_ids + n * ID_SIZE, ID_SIZE, "%s-%08ld-0001", RUN_ID, n);
    }
    if (sqlite3_open(values[1], &db) != SQLITE_OK) fail(values[1]);
    run(values[5]);
    sqlite3_stmt *fill = prepared(values[6], 19), *event = prepared(values[7], 18), *close = prepared(values[8], 1);
    sqlite3_stmt *advance = prepared(values[9], 11), *meta = prepared(values[10], 2);
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    double at = wall.tv_sec + wall.tv_nsec / 1e9;

    double began = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID);
    for (long first = 0; first < orders; first += batch) {
        long last = first + batch < orders ? first + batch : orders;
        run("BEGIN IMMEDIATE");
        for (long n = first; n < last; n++) {
            const char *order_id = order_ids + n * ID_SIZE;
            insert_order_event(event, order_id, "new", 0.0, at, 4 * n + 1);
            insert_order_event(event, order_id, "accepted", 0.0, at, 4 * n + 2);
            insert_fill(fill, fill_ids + n * ID_SIZE, order_id, at, 4 * n + 3, n + 1);
            insert_order_event(event, order_id, "filled", 1.5, at, 4 * n + 4);
            if (all) close_order(close, order_id);
        }
        if (all) {
            advance_run(advance, 4 * last, last, last - first, 3 * (last - first));
            set_commit_no(meta, last);
        }
        run("COMMIT");
    }
    if (sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) != SQLITE_OK) fail("checkpoint");
    printf("%.6f %.6f %s\n", now(CLOCK_MONOTONIC) - began, now(CLOCK_PROCESS_CPUTIME_ID) - used, sqlite3_libversion());
    sqlite3_stmt *statements[] = {fill, event, close, advance, meta};
    for (int n = 0; n < 5; n++) sqlite3_finalize(statements[n]);
    return sqlite3_close(db) == SQLITE_OK ? 0 : 1;
}
