//! Pages of lists (AIP-158). A page token contains a position and the list it belongs to, and nothing else: it is not
//! secret and carries no authority, so forging one gains nothing. It reveals nothing either: its position is an item
//! that was shown, or a row that was examined and that the caller may view (see
//! [`ScannedPage`](crate::app::ports::ScannedPage)).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    app::{ports::Page, types::Listed},
    domain::{
        Error,
        id::{AccountId, KeyId, RoleId, TeamId, UserId},
        log::revision::Revision,
    },
    grpc::convert::all,
    proto,
};

const PAGE_SIZE_DEFAULT: u32 = 50;
const PAGE_SIZE_MAX: u32 = 1_000;
const BINDING_BYTES: usize = 16;
/// Ids have at most 64 bytes; a longer token was not made here.
const PAGE_TOKEN_CHARS_MAX: usize = 256;
/// A page ends early rather than exceed this: most clients refuse messages above 4 MiB.
const PAGE_BYTES_MAX: usize = 3 << 20;

/// A list request.
pub trait Paged: prost::Message {
    /// The method's full name: a token of one list is not valid for another.
    const METHOD: &'static str;

    /// Takes the page size and the page token out of the request, which leaves the list's arguments.
    fn take_page(&mut self) -> (i32, String);
}

macro_rules! paged {
    ($($request:ident = $method:literal),+ $(,)?) => {
        $(impl Paged for proto::$request {
            const METHOD: &'static str = concat!("latchkey.v1.", $method);

            fn take_page(&mut self) -> (i32, String) {
                (std::mem::take(&mut self.page_size), std::mem::take(&mut self.page_token))
            }
        })+
    };
}

paged!(
    ListApiKeysRequest = "ApiKeyService.ListApiKeys",
    ListAccountsRequest = "DirectoryService.ListAccounts",
    ListTeamsRequest = "DirectoryService.ListTeams",
    ListRolesRequest = "DirectoryService.ListRoles",
    ListUsersRequest = "DirectoryService.ListUsers",
    ListEventsRequest = "EventService.ListEvents",
);

/// A position in a list: the key of the last item shown, or of the last row examined.
pub trait Cursor: Sized {
    /// Formats the position.
    fn write(&self) -> String;
    /// Parses a position.
    fn read(text: &str) -> Option<Self>;
}

macro_rules! id_cursors {
    ($($id:ty),+) => {
        $(impl Cursor for $id {
            fn write(&self) -> String {
                self.to_string()
            }

            fn read(text: &str) -> Option<Self> {
                Self::parse("page_token", text).ok()
            }
        })+
    };
}

id_cursors!(AccountId, KeyId, RoleId, TeamId, UserId);

/// Contains both parts: in another epoch, the same number is another event's.
impl Cursor for Revision {
    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('.')?;
        let part = |text: &str| text.parse().ok().filter(|part: &i64| *part > 0);
        Some(Self { epoch: part(epoch)?, number: part(number)? })
    }
}

/// Identifies the list that a token belongs to, by a hash of the method and its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding([u8; BINDING_BYTES]);

/// Parses the page that a request asks for, and takes it out of the request.
///
/// # Errors
/// [`Error::Invalid`] naming `page_size` if it is negative, `page_token` if this list with these
/// arguments did not return it.
pub fn page<R: Paged, C: Cursor>(request: &mut R) -> Result<(Page<C>, Binding), Error> {
    let (size, token) = request.take_page();
    let binding = Binding::of(request);
    let (limit, after) = all((limit(size), binding.open(&token)))?;
    Ok((Page { limit, after }, binding))
}

fn limit(size: i32) -> Result<u32, Error> {
    match u32::try_from(size) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
        Err(_) => Err(Error::field("page_size", "must not be negative: 0 means 50, above 1,000 means 1,000")),
    }
}

impl Binding {
    /// `arguments` has neither page size nor page token left: the size may differ from page to page.
    fn of<R: Paged>(arguments: &R) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(R::METHOD.as_bytes());
        hasher.update(&[0]);
        hasher.update(&arguments.encode_to_vec());
        let mut bytes = [0; BINDING_BYTES];
        hasher.finalize_xof().fill(&mut bytes);
        Self(bytes)
    }

    fn open<C: Cursor>(self, token: &str) -> Result<Option<C>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        let malformed = || Error::field("page_token", "is not one that this list returned");
        if token.len() > PAGE_TOKEN_CHARS_MAX {
            return Err(malformed());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| malformed())?;
        let (binding, cursor) = bytes.split_first_chunk::<BINDING_BYTES>().ok_or_else(malformed)?;
        if *binding != self.0 {
            let description = "belongs to another list: every argument but page_size must stay the same";
            return Err(Error::field("page_token", description));
        }
        let cursor = std::str::from_utf8(cursor).ok().and_then(C::read).ok_or_else(malformed)?;
        Ok(Some(cursor))
    }

    fn close<C: Cursor>(self, cursor: &C) -> String {
        let bytes = [self.0.as_slice(), cursor.write().as_bytes()].concat();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Converts a page to messages, with the token of the next page, which is empty on the last.
    #[must_use]
    pub fn respond<T, C: Cursor, M: prost::Message>(
        self,
        listed: Listed<T, C>,
        cursor: impl Fn(&T) -> C,
        convert: impl Fn(T) -> M,
    ) -> (Vec<M>, String) {
        let mut next = listed.next;
        let mut messages = Vec::with_capacity(listed.items.len());
        let mut last = None;
        let mut bytes = 0;
        for item in listed.items {
            let place = cursor(&item);
            let message = convert(item);
            bytes += message.encoded_len();
            if bytes > PAGE_BYTES_MAX && !messages.is_empty() {
                next = last;
                break;
            }
            messages.push(message);
            last = Some(place);
        }
        (messages, next.map(|place| self.close(&place)).unwrap_or_default())
    }
}

#[cfg(test)]
#[path = "page_token_tests.rs"]
mod tests;
