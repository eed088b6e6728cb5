//! Where the WAL of a stopped instance ends, read from its files: what recovery will replay to, known before the start.
//!
//! `pg_waldump` reads with PostgreSQL's own reader, so it ends where recovery would: at the first record that is not
//! whole. It prints where a record begins and how long it is; where the record ends follows from the layout of WAL pages
//! (`src/include/access/xlog_internal.h`).
//!
//! **Invariant:** an end is told only of WAL that was read record by record beyond everything the control file is certain
//! of, on the newest timeline that any file here names, where a start replays nothing else. Whatever is in doubt has no
//! end.

use crate::control::Control;
use crate::datadir::DataDir;
use crate::error::PostgresError;
use crate::instance::Instance;
use crate::program::Program;
use crate::standby::EndOfWal;
use ha::{Lsn, Timeline};
use std::path::Path;
use std::time::Duration;

/// `XLogShortPHD` and `XLogLongPHD`: the header of each page, and of the first one of a segment.
const PAGE_HEADER: u64 = 24;
const SEGMENT_HEADER: u64 = 40;
/// Records are aligned like this (`MAXALIGN`).
const ALIGNMENT: u64 = 8;

impl Instance {
    /// The end of the WAL that is here, without starting anything; `None` where only a start can tell, or where reading
    /// takes longer than `limit`.
    pub async fn end_on_disk(&self, limit: Duration) -> Option<EndOfWal> {
        match tokio::time::timeout(limit, self.read_end()).await {
            Ok(Ok(end)) => end,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the WAL was not read before the start");
                None
            }
            Err(_) => None,
        }
    }

    async fn read_end(&self) -> Result<Option<EndOfWal>, PostgresError> {
        let Some(control) = self.readable().await? else {
            return Ok(None);
        };
        let (timeline, certain) = control.end();
        let layout = Layout::of(&control);
        let from = match control.timeline == timeline {
            true => control.checkpoint.max(layout.segment_of(certain)),
            false => layout.segment_of(certain),
        };
        let mut end = None;
        let read = Program::new("pg_waldump", self.inner.binaries.program("pg_waldump"))
            .arg("-p")
            .arg(self.options().data_dir.join("pg_wal"))
            .args([format!("-t{timeline}"), format!("-s{from}")]);
        // It always fails at the end of the WAL; what it has printed until then is the answer.
        let read = read.run_lines(|line| {
            if let Some(record) = Record::read(line) {
                // Names that users give stand there as they are, with lines that look like records.
                end = end.max(Some(layout.end_of(&record)));
            }
        });
        let (read, has_archive) = tokio::join!(read, self.has_archive());
        read?;
        // Nothing was started meanwhile.
        if has_archive || self.readable().await? != Some(control) {
            return Ok(None);
        }
        Ok(end
            .filter(|lsn| *lsn >= certain)
            .map(|lsn| EndOfWal { lsn, timeline }))
    }

    /// Whether a start looks into an archive, or may. What that has goes before what is here, and on beyond its end: a
    /// primary that died has archived there what no standby ever got.
    async fn has_archive(&self) -> bool {
        let options = self.options();
        let named = options.parameters.get("restore_command");
        if named.is_some_and(|command| !command.trim().is_empty()) {
            return true;
        }
        // With -C it says what its files mean together, and ends.
        let asked = Program::new("postgres", self.inner.binaries.program("postgres"))
            .arg("-D")
            .arg(&options.data_dir)
            .arg("-c")
            .arg(format!("config_file={}", self.inner.paths.config.display()))
            .args(["-C", "restore_command"]);
        let said = asked.succeed().await;
        !said.is_ok_and(|said| said.trim().is_empty())
    }

    /// The control file, if the WAL beyond it can be read: a disk that hangs holds up none but who waits for this.
    async fn readable(&self) -> Result<Option<Control>, PostgresError> {
        let instance = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let DataDir::Ready(control) = instance.data_dir()? else {
                return Ok(None);
            };
            let data_dir = instance.options().data_dir.clone();
            let (timeline, _) = control.end();
            let readable = instance.nothing_runs().is_ok()
                && !control.in_backup
                && !data_dir.join("backup_label").exists()
                && newest_timeline(&data_dir.join("pg_wal"))? <= timeline;
            Ok(readable.then_some(control))
        });
        let cut_off = |e| PostgresError::Refused(format!("the WAL could not be read: {e}"));
        read.await.map_err(cut_off)?
    }
}

/// Of every segment and every history that lies there.
fn newest_timeline(wal: &Path) -> Result<Timeline, PostgresError> {
    let failed = |e| PostgresError::file("list", wal, e);
    let mut newest = 0;
    for entry in std::fs::read_dir(wal).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.get(..8));
        let number = number.and_then(|number| u32::from_str_radix(number, 16).ok());
        newest = newest.max(number.unwrap_or(0));
    }
    Ok(Timeline(newest))
}

/// `rmgr: XLOG len (rec/tot): 114/ 114, tx: 0, lsn: 0/03000028, prev 0/02000100, desc: CHECKPOINT_SHUTDOWN redo …`
struct Record {
    begins: Lsn,
    length: u64,
    /// The rest of its segment is empty.
    switches: bool,
}

impl Record {
    fn read(line: &str) -> Option<Self> {
        let of_xlog = line
            .strip_prefix("rmgr:")?
            .trim_start()
            .starts_with("XLOG ");
        let after = |label: &str| line.split_once(label).map(|(_, rest)| rest);
        let length = after("(rec/tot):")?.split_once('/')?.1;
        let begins = after(" lsn: ")?.split_once(',')?.0;
        let switches = of_xlog && after(" desc: ")?.trim_start().starts_with("SWITCH");
        Some(Self {
            begins: begins.trim().parse().ok()?,
            length: length.split_once(',')?.0.trim().parse().ok()?,
            switches,
        })
    }
}

/// How WAL lies in its files.
#[derive(Clone, Copy)]
struct Layout {
    segment: u64,
    page: u64,
}

impl Layout {
    fn of(control: &Control) -> Self {
        Self {
            segment: control.wal_segment_size,
            page: control.wal_block_size,
        }
    }

    /// Where the segment of that place begins.
    fn segment_of(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - lsn.0 % self.segment)
    }

    /// The place behind it, as recovery says `replayed`: headers of pages that it goes across are skipped.
    fn end_of(self, record: &Record) -> Lsn {
        let mut at = record.begins.0;
        let mut left = record.length;
        while left > 0 {
            if at.is_multiple_of(self.page) {
                at += match at % self.segment {
                    0 => SEGMENT_HEADER,
                    _ => PAGE_HEADER,
                };
            }
            let part = left.min(self.page - at % self.page);
            at += part;
            left -= part;
        }
        at = at.next_multiple_of(ALIGNMENT);
        if record.switches {
            at = at.next_multiple_of(self.segment);
        }
        Lsn(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        segment: 16 << 20,
        page: 8192,
    };

    fn end(line: &str) -> Option<Lsn> {
        Record::read(line).map(|record| LAYOUT.end_of(&record))
    }

    #[test]
    fn a_record_ends_behind_the_pages_that_it_crosses() {
        let at = |begins: u64, length: u64| {
            let record = Record {
                begins: Lsn(begins),
                length,
                switches: false,
            };
            LAYOUT.end_of(&record).0
        };
        assert_eq!(at(0x300_0028, 114), 0x300_00a0);
        // It fills its page to the last byte: the next one begins behind a header that recovery has not read yet.
        assert_eq!(at(0x300_1f00, 0x100), 0x300_2000);
        assert_eq!(at(0x300_1f00, 0x101), 0x300_2020);
        assert_eq!(at(0x300_1f00, 0x100 + 8168 + 1), 0x300_4020);
        // Into the next segment.
        assert_eq!(at(0x3ff_ff00, 0x101), 0x400_0030);
    }

    #[test]
    fn what_pg_waldump_prints_is_read() {
        let checkpoint = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/03000028, \
             prev 0/02000100, desc: CHECKPOINT_SHUTDOWN redo 0/3000028; tli 1";
        assert_eq!(end(checkpoint), Some(Lsn(0x300_00a0)));
        let switch = "rmgr: XLOG        len (rec/tot):     24/    24, tx:          0, lsn: 0/030000A8, \
             prev 0/03000028, desc: SWITCH ";
        assert_eq!(end(switch), Some(Lsn(0x400_0000)));
        let page = "rmgr: Heap        len (rec/tot):     59/  8187, tx:        735, lsn: 0/03000060, \
             prev 0/03000028, desc: INSERT off 4, blkref #0: rel 1663/5/16384 blk 0 FPW";
        assert_eq!(end(page), Some(Lsn(0x300_2078)));
        for other in [
            "pg_waldump: error: error in WAL record at 0/3000028: invalid record length at 0/30000A0",
            "first record is after 0/3000000, at 0/3000028, skipping over 40 bytes",
            "",
        ] {
            assert_eq!(end(other), None, "{other}");
        }
    }
}
