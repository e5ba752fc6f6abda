//! The files of archived events: JSON lines, a header and an event each, verified alone and together (V6).

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::Failure;
use crate::domain::log::{
    archive::{Anchor, ArchivedEvent, FORMAT, Header},
    event::Hash,
};

/// No event's line is longer.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// A file that is being written.
pub(super) struct ArchiveWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

/// A file whose header was read.
pub(super) struct ArchiveReader {
    path: PathBuf,
    lines: BufReader<File>,
    pub(super) header: Header,
}

/// Links that files, and the database, say that the chain has: by number, each with who says so.
#[derive(Default)]
pub(super) struct Links(BTreeMap<i64, (Hash, String)>);

// === impl ArchiveWriter ===

impl ArchiveWriter {
    /// Makes the file, readable by its owner only.
    ///
    /// # Errors
    /// It is there already, or cannot be made.
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
        let mut writer = Self { path: path.to_owned(), file: BufWriter::new(file) };
        writer.line(header)?;
        Ok(writer)
    }

    pub(super) fn line(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.file, line).map_err(|error| at(&self.path)(error.into()))?;
        Ok(self.file.write_all(b"\n").map_err(at(&self.path))?)
    }

    /// Waits until the file, and its name, are on disk.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(at(&self.path))?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?)
    }
}

// === impl ArchiveReader ===

impl ArchiveReader {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let mut lines = BufReader::new(File::open(path).map_err(at(path))?);
        let header = line::<Header>(path, &mut lines, 1)?.filter(|header| header.format == FORMAT);
        let header =
            header.ok_or_else(|| format!("{}: not an archive of events (expected format {FORMAT})", path.display()))?;
        if header.through.number <= header.after.number {
            return Err(format!("{}: contains no events", path.display()).into());
        }
        Ok(Self { path: path.to_owned(), lines, header })
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Verifies the chain from the file's first event to its last, and each link that somebody else has of it.
    ///
    /// # Errors
    /// The first event that does not fit, and its line.
    pub(super) fn verify(mut self, links: &Links) -> Result<(), Failure> {
        let mut last = self.header.after;
        for number in 2_u64.. {
            let Some(event) = line::<ArchivedEvent>(&self.path, &mut self.lines, number)? else { break };
            let wrong =
                |problem: &str| format!("{}: line {number}: event {}: {problem}", self.path.display(), last.number + 1);
            if last.number == self.header.through.number {
                return Err(wrong("the header names an earlier event as the last").into());
            }
            let next = last.next(&event).map_err(wrong)?;
            links.check(&next).map_err(|problem| wrong(&problem))?;
            last = next;
        }
        if last != self.header.through {
            let (path, missing) = (self.path.display(), last.number + 1);
            return Err(format!("{path}: event {missing} is missing: the file ends before its last event").into());
        }
        Ok(())
    }
}

// === impl Links ===

impl Links {
    /// Adds what somebody says.
    ///
    /// # Errors
    /// Somebody said otherwise.
    pub(super) fn add(&mut self, link: &Anchor, who: &str) -> Result<(), String> {
        self.check(link).map_err(|problem| format!("{who}: event {}: {problem}", link.number))?;
        self.0.insert(link.number, (link.hash, who.to_owned()));
        Ok(())
    }

    fn check(&self, link: &Anchor) -> Result<(), String> {
        match self.0.get(&link.number) {
            Some((hash, who)) if *hash != link.hash => Err(format!("the hash differs from that in {who}")),
            _ => Ok(()),
        }
    }
}

fn line<T: DeserializeOwned>(path: &Path, lines: &mut BufReader<File>, number: u64) -> Result<Option<T>, Failure> {
    let mut text = Vec::new();
    lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text).map_err(at(path))?;
    if text.is_empty() {
        return Ok(None);
    }
    let read = serde_json::from_slice(&text);
    Ok(Some(read.map_err(|error| format!("{}: line {number} cannot be read: {error}", path.display()))?))
}

fn at(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}
