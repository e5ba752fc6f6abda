//! The peppers (T2): 32-byte secrets that key the digests of tokens. They come from a file or a variable, never from
//! the database, and never appear in a message.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::settings::setting::{Parse, Setting};

/// Holds all configured peppers, at least one. The first mints; every one verifies.
#[derive(Debug, Clone)]
pub struct Peppers(Vec<ConfiguredPepper>);

/// Holds one pepper. `Debug` prints where it came from, never the secret.
#[derive(Clone)]
pub struct ConfiguredPepper {
    /// 1–32 characters of `[a-z0-9_-]`; stored beside every digest made with it.
    pub id: String,
    /// Where the secret was read.
    pub source: PepperSource,
    /// The secret itself.
    pub secret: Zeroizing<[u8; 32]>,
}

/// Says where a pepper's secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PepperSource {
    /// A file holding 64 hex digits.
    File(PathBuf),
    /// An environment variable holding 64 hex digits.
    Variable(String),
}

/// Longest secret file read, in bytes: the digits and generous white space. A longer file is no pepper.
const FILE_BYTES_MAX: u64 = 1024;

const SHAPE: &str = "must be exactly 64 hex digits (32 bytes; generate one with `openssl rand -hex 32`)";

impl Peppers {
    /// Returns the pepper that newly minted tokens are hashed with.
    pub fn minting(&self) -> &ConfiguredPepper {
        self.0.first().expect("a parsed list of peppers is never empty")
    }

    /// Lists all peppers, the minting one first.
    pub fn all(&self) -> &[ConfiguredPepper] {
        &self.0
    }

    /// Lists the variables that a `peppers` text refers to, so that they are not taken for misspelt settings.
    pub(in super::super) fn variables_in(text: &str) -> impl Iterator<Item = &str> {
        text.split(',').filter_map(|item| item.trim().split_once('=')?.1.trim().strip_prefix("env:"))
    }
}

impl Parse for Peppers {
    fn parse(text: &str, _: &Setting, environment: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        let mut peppers: Vec<ConfiguredPepper> = Vec::new();
        let mut problems = Vec::new();
        for (index, item) in text.split(',').enumerate() {
            match parse_item(item.trim(), environment) {
                Err(problem) => problems.push(format!("pepper number {} {problem}", index + 1)),
                Ok(pepper) => match peppers.iter().find(|other| clash(other, &pepper)) {
                    Some(other) => problems.push(format!(
                        "pepper number {} ({}) repeats the id or the secret of pepper {}",
                        index + 1,
                        pepper.id,
                        other.id
                    )),
                    None => peppers.push(pepper),
                },
            }
        }
        if problems.is_empty() { Ok(Self(peppers)) } else { Err(problems) }
    }

    fn shown(&self) -> String {
        let show = |pepper: &ConfiguredPepper| format!("{} from {}", pepper.id, pepper.source);
        self.0.iter().map(show).collect::<Vec<_>>().join(", ")
    }
}

fn clash(one: &ConfiguredPepper, other: &ConfiguredPepper) -> bool {
    one.id == other.id || one.secret == other.secret
}

/// Reads one `id=file:/path` or `id=env:VARIABLE`. The item is echoed only as far as it is known to be no secret:
/// the secret itself may stand where its place belongs.
fn parse_item(item: &str, environment: &HashMap<String, String>) -> Result<ConfiguredPepper, String> {
    let (id, place) =
        item.split_once('=').ok_or("is not of the form id=file:/path or id=env:VARIABLE (value not shown)")?;
    let (id, place) = (id.trim(), place.trim());
    let is_id_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if !(1..=32).contains(&id.len()) || !id.bytes().all(is_id_byte) {
        return Err("has an id that is not 1 to 32 characters of a-z, 0-9, `_` and `-`".to_owned());
    }
    let (source, text) = if let Some(path) = place.strip_prefix("file:") {
        (PepperSource::File(PathBuf::from(path)), read_file(Path::new(path)).map_err(|why| format!("({id}): {why}"))?)
    } else if let Some(variable) = place.strip_prefix("env:") {
        if decode(variable).is_some() {
            return Err(format!(
                "({id}) holds the secret itself instead of a variable's name; it may have leaked, so replace it"
            ));
        }
        let text = environment.get(variable).ok_or_else(|| format!("({id}): the variable {variable:?} is not set"))?;
        (PepperSource::Variable(variable.to_owned()), Zeroizing::new(text.clone()))
    } else {
        return Err(format!("({id}) must be given as file:/path or env:VARIABLE (value not shown)"));
    };
    let secret = decode(text.trim()).ok_or_else(|| format!("({id}): the content of {source} {SHAPE}"))?;
    if secret.iter().all(|byte| *byte == secret[0]) {
        return Err(format!("({id}): the content of {source} is one byte repeated: a placeholder, not a secret"));
    }
    Ok(ConfiguredPepper { id: id.to_owned(), source, secret })
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, String> {
    if !path.is_absolute() {
        return Err("the path is not absolute (value not shown)".to_owned());
    }
    let mut text = Zeroizing::new(String::with_capacity(2 * FILE_BYTES_MAX as usize));
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(read) if read as u64 > FILE_BYTES_MAX => Err(format!("the file {path:?} {SHAPE}")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot read the file {path:?}: {}", error.kind())),
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut secret = Zeroizing::new([0; 32]);
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(secret)
}

impl fmt::Debug for ConfiguredPepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, source, secret: _ } = self;
        f.debug_struct("ConfiguredPepper").field("id", id).field("source", source).finish_non_exhaustive()
    }
}

impl fmt::Display for PepperSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Variable(variable) => write!(f, "env:{variable}"),
        }
    }
}
