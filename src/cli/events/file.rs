//! The files of archived events: JSON lines, a header and an event each, verified alone and together (V6).

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cli::failure::Failure,
    domain::log::{
        archive::{Anchor, ArchivedEvent, FORMAT, Header},
        event::Hash,
    },
};

/// The longest line that is read, in bytes; no event's line is longer.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Writes a file of archived events.
pub(super) struct ArchiveWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

/// Reads a file of archived events, whose header it has read.
pub(super) struct ArchiveReader {
    path: PathBuf,
    lines: BufReader<File>,
    pub(super) header: Header,
}

/// Collects the links of the chain that the files and the database state: hash and origin by number.
#[derive(Default)]
pub(super) struct Links(BTreeMap<i64, (Hash, String)>);

// === impl ArchiveWriter ===

impl ArchiveWriter {
    /// Creates the file, readable by its owner only, and writes its header.
    ///
    /// # Errors
    /// The file exists already, or cannot be created.
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
        let mut writer = Self { path: path.to_owned(), file: BufWriter::new(file) };
        writer.line(header)?;
        Ok(writer)
    }

    /// Appends one value as a line of JSON.
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

    /// Verifies the chain from the file's first event to its last, and each of its links that another source states
    /// too.
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
    /// Adds a link and its origin.
    ///
    /// # Errors
    /// Another origin states another hash for that event.
    pub(super) fn add(&mut self, link: &Anchor, origin: &str) -> Result<(), String> {
        self.check(link).map_err(|problem| format!("{origin}: event {}: {problem}", link.number))?;
        self.0.insert(link.number, (link.hash, origin.to_owned()));
        Ok(())
    }

    fn check(&self, link: &Anchor) -> Result<(), String> {
        match self.0.get(&link.number) {
            Some((hash, origin)) if *hash != link.hash => Err(format!("the hash differs from that in {origin}")),
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
