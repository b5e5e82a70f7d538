//! SQLite: a table that separate processes update, each through its own connection.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::{Client, Outcome, Peer, System};
use crate::race::{Point, Seat};

const SCHEMA: &str = "
    CREATE TABLE tasks (id TEXT PRIMARY KEY, state TEXT NOT NULL DEFAULT 'ready', worker TEXT) WITHOUT ROWID;
    CREATE INDEX tasks_by_state ON tasks (state, id);";
const CLAIM: &str = "
    UPDATE tasks SET state = 'claimed', worker = ?1
    WHERE id = (SELECT id FROM tasks WHERE state = 'ready' ORDER BY id LIMIT 1)
    RETURNING id";
const COMPLETE: &str = "UPDATE tasks SET state = 'completed' WHERE id = ?1 AND worker = ?2";

/// `UPDATE … RETURNING`, with the write-ahead log and a sync at every commit.
pub(crate) struct Sqlite;

impl Peer for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn title(&self) -> &'static str {
        "SQLite, `UPDATE … RETURNING`, WAL, FULL"
    }

    fn start(&self, point: &Point) -> Outcome<Box<dyn System>> {
        let mut connection = open(point)?;
        connection.execute_batch(SCHEMA)?;
        let transaction = connection.transaction()?;
        for id in point.ids() {
            transaction.prepare_cached("INSERT INTO tasks (id) VALUES (?1)")?.execute([id])?;
        }
        transaction.commit()?;
        // This connection stays open: the last connection to close would copy the whole log back during the race.
        Ok(Box::new(connection))
    }

    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>> {
        Ok(Box::new(Worker { connection: open(&seat.point)?, name: seat.worker() }))
    }
}

fn open(point: &Point) -> Outcome<Connection> {
    let connection = Connection::open(point.dir.join("tasks.db"))?;
    // Longer than a point, so that a client waits for a busy database and does not fail.
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

impl System for Connection {
    fn completed(&self) -> Outcome<Option<usize>> {
        let count = "SELECT count(*) FROM tasks WHERE state = 'completed'";
        let completed: i64 = self.query_row(count, [], |row| row.get(0))?;
        Ok(Some(usize::try_from(completed)?))
    }
}

struct Worker {
    connection: Connection,
    name: String,
}

impl Client for Worker {
    fn claim(&mut self) -> Outcome<Option<String>> {
        let mut statement = self.connection.prepare_cached(CLAIM)?;
        let mut rows = statement.query([&self.name])?;
        let task = rows.next()?.map(|row| row.get(0)).transpose()?;
        // The commit happens when the statement has run to its end. Only then can it fail.
        rows.next()?;
        Ok(task)
    }

    fn complete(&mut self, task: &str) -> Outcome<()> {
        match self.connection.prepare_cached(COMPLETE)?.execute(params![task, self.name])? {
            1 => Ok(()),
            changed => Err(format!("completing {task} in SQLite changed {changed} rows").into()),
        }
    }
}
