use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::*;

/// Gives its pieces one a read, and then the end.
struct Pieces(VecDeque<Vec<u8>>);

#[derive(Clone, Default)]
struct RecordedEvents(Rc<RefCell<(u32, bool)>>);

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let later = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !later.is_empty() {
                self.0.push_front(later);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl WireEvents for RecordedEvents {
    fn greeted(&self) {
        self.0.borrow_mut().0 += 1;
    }

    fn waits_for_headers(&self, waits: bool) {
        self.0.borrow_mut().1 = waits;
    }
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

fn greeting() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, &[0, 3, 0, 0, 0, 9])].concat()
}

const BAD: &[u8] = b"\x83\x86\x41\x09a:1,b:2:3\x44\x04/a/b\x40\x02te\x08trailers";
const GOOD: &[u8] = b"\x83\x86\x41\x09xxxxxxxxx\x44\x04/a/b\x40\x02te\x08trailers";

/// A connection in which blocks of headers are said in every way.
fn connection(block: &[u8]) -> Vec<u8> {
    let padded = [&[3], block, &[0; 3]].concat();
    let all = [&[2][..], &[0, 0, 0, 0, 7], block, &[0; 2]].concat();
    [
        greeting(),
        frame(1, 0x4, block),
        frame(0, 0, &[7; 300]),
        frame(1, 0xc, &padded),
        frame(8, 0, &[0, 0, 0, 1]),
        frame(1, 0x2c, &all),
        frame(0, 1, &[]),
        // In pieces, one of them nothing.
        frame(1, 0, &block[..7]),
        frame(9, 0, &block[7..9]),
        frame(9, 0, &[]),
        frame(9, 4, &block[9..]),
        frame(1, 0x5, block),
    ]
    .concat()
}

/// What the transport reads of a connection that comes in pieces, with room for so much at a time.
async fn read(pieces: Vec<Vec<u8>>, room: usize) -> (Vec<u8>, RecordedEvents) {
    let events = RecordedEvents::default();
    let mut wire = InspectedStream::new(Pieces(pieces.into()), events.clone());
    let mut all = vec![];
    loop {
        let mut buffer = vec![0; room];
        match wire.read(&mut buffer).await.unwrap() {
            0 => return (all, events),
            read => all.extend_from_slice(&buffer[..read]),
        }
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

#[test]
fn every_block_of_headers_is_repaired_and_nothing_else_is_changed() {
    let (read, events) = block_on(read(vec![connection(BAD)], 100_000));
    assert_eq!(read, connection(GOOD));
    assert_eq!(*events.0.borrow(), (1, false));
}

#[test]
fn a_handshake_is_reported_once_it_is_complete() {
    let whole = greeting();
    for end in 0..=whole.len() {
        let (read, events) = block_on(read(vec![whole[..end].to_vec()], 100));
        assert_eq!(read, &whole[..end]);
        assert_eq!(events.0.borrow().0, u32::from(end == whole.len()), "{end}");
    }
}

#[test]
fn what_is_no_http_2_or_too_large_or_broken_off_goes_by_as_it_is() {
    let large = [greeting(), frame(1, 0, &[b'a'; 70_000]), frame(9, 4, &[b'a'; 100])].concat();
    let many = [greeting(), frame(1, 0, BAD), frame(9, 0, &[]).repeat(100)].concat();
    let wrong = [greeting(), frame(1, 0, BAD), frame(0, 0, &[1; 20])].concat();
    let broken = [greeting(), frame(1, 4, BAD)[..20].to_vec()].concat();
    let short = [greeting(), frame(1, 0x2c, &[200, 1])].concat();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), large, many, wrong, broken, short] {
        assert_eq!(block_on(read(vec![bytes.clone()], 1_000)).0, bytes);
    }
}

#[tokio::test]
async fn a_flood_is_an_error() {
    let flood = [greeting(), frame(3, 0, &[0, 0, 0, 8]).repeat(10_000)].concat();
    let mut wire = InspectedStream::new(Pieces(vec![flood].into()), RecordedEvents::default());
    let error = wire.read_to_end(&mut vec![]).await.unwrap_err();
    assert!(error.get_ref().unwrap().is::<crate::server::wire::meter::Flood>(), "{error}");
}

proptest! {
    #[test]
    fn however_it_is_cut_up_the_transport_reads_the_same(
        cuts in proptest::collection::vec(1..60usize, 1..200),
        room in 1..200usize,
    ) {
        let bytes = connection(BAD);
        let mut rest = &bytes[..];
        let mut pieces = vec![];
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece.to_vec());
            rest = later;
        }
        let (read, events) = block_on(read(pieces, room));
        prop_assert_eq!(read, connection(GOOD));
        prop_assert_eq!(*events.0.borrow(), (1, false));
    }

    #[test]
    fn any_bytes_go_by_or_are_a_flood(bytes: Vec<u8>, room in 1..50usize) {
        let bytes = [greeting(), bytes].concat();
        prop_assert_eq!(block_on(read(vec![bytes.clone()], room)).0.len(), bytes.len());
    }
}
