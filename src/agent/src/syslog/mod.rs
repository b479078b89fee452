//! The log to a syslog server: RFC 5424 over UDP (RFC 5426), TCP with octet counting (RFC 6587) or TLS (RFC 5425).
//!
//! It reads the log at its own pace and holds nobody up. What it could not send before the log forgot it is counted and
//! said in the stream itself. Neither UDP nor TCP has an answer, so lines on their way when a connection ends may be lost
//! without a word; `sequenceId` shows the gap at the server.

mod connection;
mod format;
mod target;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use speediso_model::log::{LogLevel, LogLine, LogSource};
use speediso_sys::clock;

use connection::Connection;
pub use format::{Origin, message};
pub use target::{SyslogTarget, Transport};

use crate::backoff::Backoff;
use crate::console::board::Board;
use crate::logs::Logs;

const BATCH: usize = 100;

/// Sends for ever.
pub async fn send(logs: Logs, target: SyslogTarget, pins: Vec<[u8; 32]>, origin: Origin, board: Board) {
    let reader = logs.reader();
    let mut newest = logs.newest();
    let mut backoff = Backoff::default();
    let mut sent = Sent { sequence: 0, next: 0 };
    loop {
        let failed = match Connection::open(&target, &pins).await {
            Ok(mut connection) => {
                if backoff.tries() > 0 {
                    tracing::info!("syslog: {target} takes the log again");
                }
                loop {
                    newest.mark_unchanged();
                    match sent.batch(&logs, &origin, &board, &mut connection).await {
                        Ok(0) => {}
                        Ok(_) => {
                            backoff.reset();
                            reader.reached(sent.next);
                            continue;
                        }
                        Err(error) => break error,
                    }
                    tokio::select! {
                        _ = newest.changed() => {}
                        error = connection.closed() => break error,
                    }
                }
            }
            Err(error) => error,
        };
        if backoff.tries() == 0 {
            tracing::warn!("syslog: {target}: {failed}; trying on");
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

struct Sent {
    sequence: u32,
    next: u64,
}

impl Sent {
    /// Sends what there is, line by line; after a failure the line that failed is the next one.
    async fn batch(
        &mut self,
        logs: &Logs,
        origin: &Origin,
        board: &Board,
        connection: &mut Connection,
    ) -> std::io::Result<usize> {
        let batch = logs.after(self.next, BATCH);
        let run = board.run();
        if batch.lost > 0 {
            let gap = lost(batch.lost);
            self.one(&gap, origin, run.as_deref(), connection).await?;
            self.next += batch.lost;
        }
        for line in &batch.lines {
            self.one(line, origin, run.as_deref(), connection).await?;
            self.next += 1;
        }
        connection.flush().await?;
        Ok(batch.lines.len())
    }

    async fn one(
        &mut self,
        line: &LogLine,
        origin: &Origin,
        run: Option<&str>,
        connection: &mut Connection,
    ) -> std::io::Result<()> {
        // 1 to 2147483647, then again from 1 (RFC 5424, section 7.3.1).
        let sequence = self.sequence % 0x7fff_ffff + 1;
        connection.send(message(line, said_at(line), origin, run, sequence).as_bytes()).await?;
        self.sequence = sequence;
        Ok(())
    }
}

fn lost(n: u64) -> Arc<LogLine> {
    Arc::new(LogLine {
        seq: 0,
        uptime_ms: clock::uptime_ms(),
        level: LogLevel::Warn,
        source: LogSource::Agent,
        text: format!("{n} lines of the log were lost before they could be sent"),
    })
}

/// By the wall clock of now, which may have been set since the line was said.
fn said_at(line: &LogLine) -> jiff::Timestamp {
    let age = Duration::from_millis(clock::uptime_ms().saturating_sub(line.uptime_ms));
    let since =
        SystemTime::now().checked_sub(age).and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let ms = i64::try_from(since.as_millis()).unwrap_or(0);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}
