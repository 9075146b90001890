//! What the other end may do wrong: a server to our client, a client to our server.

use proptest::prelude::*;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use trapline_devices::assigned::Backend;
use trapline_devices::vfio_user::Client;
use trapline_devices::vfio_user::client::{Error, Settings};
use trapline_devices::vfio_user::server::Server;
use trapline_devices::vfio_user::wire::{
    Command, DeviceFlags, DeviceInfo, DmaAccess, DmaFlags, HEADER, Header, Kind, RegionAccess, RegionFlags,
    RegionInfo, RegionReply, Version,
};
use trapline_io::{Fault, Region, Width};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

#[path = "vfio_user_toy/device.rs"]
mod toy;
use toy::{Reports, Served};

/// For a server that answers or hangs up, however late its thread runs.
const PATIENT: Duration = Duration::from_secs(20);
/// For one that does neither: so long a test takes.
const SHORT: Duration = Duration::from_millis(200);

/// A server that a test plays by hand.
struct Played(UnixStream);

const COMMAND: Kind = Kind::Command { no_reply: false };

impl Played {
    /// The next message; `None` at the end.
    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut bytes = [0; HEADER];
        self.0.read_exact(&mut bytes).ok()?;
        let header = Header::decode(bytes).unwrap();
        let mut payload = vec![0; header.payload()];
        self.0.read_exact(&mut payload).ok()?;
        Some((header, payload))
    }

    fn send(&mut self, id: u16, command: Command, kind: Kind, payload: &[u8]) {
        let header = Header::new(id, command, kind, payload.len());
        self.0.write_all(&[&header.encode(), payload].concat()).unwrap();
    }

    fn reply(&mut self, to: Header, payload: &[u8]) {
        self.send(to.id, to.command, Kind::Reply, payload);
    }

    /// Answers the next message.
    fn answer(&mut self, payload: &[u8]) {
        let (asked, _) = self.next().unwrap();
        self.reply(asked, payload);
    }

    /// Answers what a client, which counts from 0 on, will ask: there is one region of 16 bytes.
    fn introduce(&mut self) {
        let region = region_info(RegionFlags::new().with_read(true).with_write(true));
        self.send(0, Command::VERSION, Kind::Reply, &Version::ours().encode());
        self.send(1, Command::DEVICE_INFO, Kind::Reply, device_info(1, true).as_bytes());
        self.send(2, Command::REGION_INFO, Kind::Reply, &region);
    }

    /// Swallows requests until the client gives up.
    fn stay_silent(&mut self) {
        while self.next().is_some() {}
    }
}

fn device_info(regions: u32, pci: bool) -> DeviceInfo {
    let flags = DeviceFlags::new().with_pci(pci).with_reset(true);
    DeviceInfo { argsz: 16.into(), flags: flags.into_bits().into(), regions: regions.into(), irqs: 0.into() }
}

fn region_info(flags: RegionFlags) -> Vec<u8> {
    let info = RegionInfo { flags: flags.into_bits().into(), size: 16.into(), ..RegionInfo::default() };
    RegionReply { info, areas: None }.encode(4096).0
}

/// A client whose server is played; `script` runs after the introduction.
fn against(
    deadline: Duration,
    script: impl FnOnce(Played) + Send + 'static,
) -> (Client, Arc<Reports>, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut played = Played(theirs);
    // Before it is asked: a short deadline is for what `script` does.
    played.introduce();
    let server = std::thread::spawn(move || {
        (0..3).for_each(|_| drop(played.next().unwrap()));
        script(played);
    });
    let reports = Arc::new(Reports::default());
    let settings = Settings { name: "toy".into(), deadline, events: Some(reports.clone()) };
    (Client::over(ours, settings).unwrap(), reports, server)
}

/// Opens a client whose server is played from the start.
fn open_against(deadline: Duration, script: impl FnOnce(Played) + Send + 'static) -> Result<Client, Error> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || script(Played(theirs)));
    let client = Client::over(ours, Settings { deadline, ..Settings::default() });
    drop(server.join());
    client
}

/// The device dies with the first read, with one report that holds `text`.
fn dies(text: &str, script: impl FnOnce(Played) + Send + 'static) {
    dies_within(PATIENT, text, script);
}

/// The same for a client that waits for an answer so long.
fn dies_within(deadline: Duration, text: &str, script: impl FnOnce(Played) + Send + 'static) {
    let (mut client, reports, server) = against(deadline, script);
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(client.read(Region(0), 0, Width::B4), Err(Fault::Failed));
    }
    assert!(client.is_dead());
    assert!(start.elapsed() < PATIENT, "{:?}", start.elapsed());
    let failures = reports.failures();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].starts_with("toy: ") && failures[0].contains(text), "{failures:?}");
    drop(client);
    server.join().unwrap();
}

/// An idle client notices the end of its connection.
fn dies_by_attending(client: &mut Client) {
    let start = Instant::now();
    while !client.is_dead() {
        assert!(start.elapsed() < PATIENT, "nobody notices");
        client.attend();
    }
}

#[test]
fn a_server_that_never_replies() {
    dies_within(SHORT, "no answer to REGION_READ within 200ms", |mut played| played.stay_silent());
}

#[test]
fn a_server_that_replies_drop_by_drop() {
    dies_within(SHORT, "no answer", |mut played| {
        let (header, _) = played.next().unwrap();
        // More drops than anybody has patience for: whoever waits anew after each is found out.
        let reply = Header::new(header.id, header.command, Kind::Reply, 1000).encode();
        for byte in reply.into_iter().chain([0; 1000]) {
            if played.0.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn a_server_that_chatters_instead_of_replying() {
    dies_within(SHORT, "no answer", |mut played| {
        let access = DmaAccess { address: 0.into(), count: 1.into() };
        played.next();
        let header = Header::new(1, Command::DMA_READ, Kind::Command { no_reply: true }, 16).encode();
        while played.0.write_all(&[&header, access.as_bytes()].concat()).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_header() {
    dies("ended after 7 bytes", |mut played| {
        played.next();
        played.0.write_all(&[0; 7]).unwrap();
    });
}

#[test]
fn a_server_that_closes() {
    dies("closed the connection", |mut played| {
        played.next();
        played.0.shutdown(Shutdown::Both).unwrap();
    });
}

#[test]
fn messages_of_impossible_size_or_type() {
    for (patch, text) in
        [((4, u32::MAX), "message size"), ((4, 3), "message size"), ((8, 5), "message type 5")]
    {
        dies(text, move |mut played| {
            let (header, _) = played.next().unwrap();
            let mut bytes = Header::new(header.id, header.command, Kind::Reply, 20).encode();
            bytes[patch.0..patch.0 + 4].copy_from_slice(&patch.1.to_le_bytes());
            played.0.write_all(&bytes).unwrap();
            played.stay_silent();
        });
    }
}

#[test]
fn replies_to_something_else() {
    let access = |count: u32| RegionAccess { offset: 0.into(), region: 0.into(), count: count.into() };
    let data = |count| [access(count).as_bytes(), &[0; 4]].concat();
    let right = data(4);
    let cases: [(u16, Command, Vec<u8>); 4] = [
        (1, Command::REGION_READ, right.clone()),
        (0, Command::REGION_WRITE, right.clone()),
        (0, Command::REGION_READ, data(8)),
        (0, Command::REGION_READ, right[..18].to_vec()),
    ];
    for (off, command, payload) in cases {
        dies("nonsense", move |mut played| {
            let (header, _) = played.next().unwrap();
            played.send(header.id.wrapping_add(off), command, Kind::Reply, &payload);
            played.stay_silent();
        });
    }
}

#[test]
fn a_refusal_is_not_the_end() {
    let (mut client, reports, server) = against(PATIENT, |mut played| {
        let (header, _) = played.next().unwrap();
        played.send(header.id, header.command, Kind::Refusal(0), &[]);
        let (header, payload) = played.next().unwrap();
        played.reply(header, &[&payload[..], &[1, 2, 3, 4]].concat());
    });
    assert_eq!(client.read(Region(0), 0, Width::B4), Err(Fault::Failed));
    assert_eq!(client.read(Region(0), 0, Width::B4), Ok(0x0403_0201));
    assert!(reports.failures().is_empty());
    server.join().unwrap();
}

#[test]
fn a_handshake_that_fails() {
    let broken = open_against(PATIENT, |mut played| played.answer(b"\0\0\x01\0{\"capabilities\":}\0"));
    assert!(matches!(broken, Err(Error::Lost { command: Command::VERSION, .. })), "{broken:?}");
    let other = Version { major: 1, ..Version::ours() }.encode();
    let major = open_against(PATIENT, move |mut played| played.answer(&other));
    assert!(matches!(major, Err(Error::Version { major: 1, .. })), "{major:?}");
    let not_pci = open_against(PATIENT, |mut played| {
        played.answer(&Version::ours().encode());
        played.answer(device_info(1, false).as_bytes());
    });
    assert!(matches!(not_pci, Err(Error::NotPci)), "{not_pci:?}");
    let many = open_against(PATIENT, |mut played| {
        played.answer(&Version::ours().encode());
        played.answer(device_info(65, true).as_bytes());
    });
    assert!(matches!(many, Err(Error::Lost { command: Command::DEVICE_INFO, .. })), "{many:?}");
    let silent = open_against(SHORT, |mut played| played.stay_silent());
    assert!(matches!(silent, Err(Error::Lost { command: Command::VERSION, .. })), "{silent:?}");
}

#[test]
fn a_region_to_be_mapped_without_a_descriptor_is_trapped() {
    let client = open_against(PATIENT, |mut played| {
        played.answer(&Version::ours().encode());
        played.answer(device_info(1, true).as_bytes());
        let flags = RegionFlags::new().with_read(true).with_write(true).with_mmap(true);
        played.answer(&region_info(flags));
    });
    assert!(client.unwrap().regions()[0].mappings.is_empty());
}

#[test]
fn a_servers_own_requests_are_served_on_the_way() {
    let (mut client, reports, server) = against(PATIENT, |mut played| {
        played.answer(&[]);
        let (read, asked) = played.next().unwrap();
        // Inside the window, outside of it, and something that is no server's to ask.
        for (id, command, address, count) in [
            (70, Command::DMA_READ, 0x1004u64, 4u64),
            (71, Command::DMA_READ, 0x1ffd, 4),
            (72, Command::RESET, 0, 0),
        ] {
            let access = DmaAccess { address: address.into(), count: count.into() };
            let payload = if command == Command::RESET { &[] } else { access.as_bytes() };
            played.send(id, command, COMMAND, payload);
        }
        let write = DmaAccess { address: 0x1010.into(), count: 2.into() };
        played.send(73, Command::DMA_WRITE, COMMAND, &[write.as_bytes(), &[8, 9]].concat());
        let (first, payload) = played.next().unwrap();
        assert_eq!((first.id, first.kind), (70, Kind::Reply));
        assert_eq!(payload[16..], [1, 2, 3, 4]);
        let (second, _) = played.next().unwrap();
        assert_eq!((second.id, second.kind), (71, Kind::Refusal(14)));
        let (third, _) = played.next().unwrap();
        assert_eq!((third.id, third.kind), (72, Kind::Refusal(95)));
        let (fourth, payload) = played.next().unwrap();
        assert_eq!((fourth.id, fourth.kind, payload.len()), (73, Kind::Reply, 16));
        played.reply(read, &[&asked[..], &[5, 0, 0, 0]].concat());
        played.stay_silent();
    });
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
    memory.write_slice(&[1, 2, 3, 4], GuestAddress(0x1004)).unwrap();
    client.serve_memory(memory.clone());
    client.dma_map(0x1000, 0x1000, DmaFlags::new().with_read(true).with_write(true), None).unwrap();
    assert_eq!(client.read(Region(0), 0, Width::B4), Ok(5));
    assert_eq!(memory.read_obj::<u16>(GuestAddress(0x1010)).unwrap(), 0x0908);
    assert!(reports.failures().is_empty());
    drop(client);
    server.join().unwrap();
}

#[test]
fn without_memory_a_servers_requests_are_refused() {
    let (mut client, _, server) = against(PATIENT, |mut played| {
        let access = DmaAccess { address: 0.into(), count: 4.into() };
        played.send(9, Command::DMA_READ, COMMAND, access.as_bytes());
        assert_eq!(played.next().unwrap().0.kind, Kind::Refusal(95));
        played.0.shutdown(Shutdown::Write).unwrap();
    });
    dies_by_attending(&mut client);
    server.join().unwrap();
}

/// A client played by hand, connected to a served toy.
fn raw(served: &Served) -> Played {
    let socket = UnixStream::connect(&served.path).unwrap();
    socket.set_read_timeout(Some(PATIENT)).unwrap();
    Played(socket)
}

fn greeted(served: &Served) -> Played {
    let mut client = raw(served);
    client.send(1, Command::VERSION, COMMAND, &Version::ours().encode());
    let (header, payload) = client.next().unwrap();
    assert_eq!(header.kind, Kind::Reply);
    assert_eq!(Version::decode(&payload).unwrap(), Version::ours());
    client
}

/// The connection is over, and the next client is served all the same.
fn thrown_out(served: &Served, mut client: Played) {
    while client.next().is_some() {}
    let end = client.0.read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "the server hangs on: {end:?}");
    let mut good = Client::connect(&served.path, Settings::default()).unwrap();
    assert_eq!(good.read(Region(2), 0, Width::B4), Ok(0));
}

#[test]
fn clients_that_speak_nonsense_lose_their_connection_only() {
    let served = Served::new();
    let mut headers = [[0u8; HEADER]; 3];
    headers[0][4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    headers[1][4..8].copy_from_slice(&5u32.to_le_bytes());
    headers[2] = Header::new(1, Command::RESET, Kind::Reply, 0).encode();
    for header in headers {
        let mut client = greeted(&served);
        client.0.write_all(&header).unwrap();
        thrown_out(&served, client);
        let mut client = raw(&served);
        client.0.write_all(&header).unwrap();
        thrown_out(&served, client);
    }
    let mut short = greeted(&served);
    short.0.write_all(&[0; 9]).unwrap();
    short.0.shutdown(Shutdown::Write).unwrap();
    thrown_out(&served, short);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_client_sends_the_server_lives(
        command in 0u16..20,
        size in 0u32..80,
        flags in 0u32..64,
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut client = Played(ours);
        client.send(1, Command::VERSION, COMMAND, &Version::ours().encode());
        let mut header = Header::new(2, Command(command), COMMAND, 0).encode();
        header[4..8].copy_from_slice(&size.to_le_bytes());
        header[8..12].copy_from_slice(&flags.to_le_bytes());
        client.0.write_all(&[&header, &payload[..]].concat()).unwrap();
        client.0.shutdown(Shutdown::Write).unwrap();
        let server = Server::unbound(toy::description(toy::sealed())).unwrap();
        let _ = server.serve(theirs, &mut toy::Toy::new());
    }

    #[test]
    fn whatever_a_server_sends_the_client_lives(
        command in 0u16..20,
        size in 0u32..80,
        flags in 0u32..64,
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (mut client, reports, server) = against(PATIENT, move |mut played| {
            let (asked, _) = played.next().unwrap();
            let mut header = Header::new(asked.id, Command(command), Kind::Reply, 0).encode();
            header[4..8].copy_from_slice(&size.to_le_bytes());
            header[8..12].copy_from_slice(&flags.to_le_bytes());
            played.0.write_all(&[&header, &payload[..]].concat()).unwrap();
            played.0.shutdown(Shutdown::Write).unwrap();
            played.stay_silent();
        });
        let read = client.read(Region(0), 0, Width::B4);
        // What it took for an answer leaves it alive, and the end of the connection may come later.
        dies_by_attending(&mut client);
        prop_assert_eq!(reports.failures().len(), 1);
        prop_assert!(read.is_err() || command == Command::REGION_READ.0);
        drop(client);
        server.join().unwrap();
    }
}

#[test]
fn clients_must_greet_first_and_properly() {
    let served = Served::new();
    let json = b"\0\0\x01\0{\"capabilities\":[}\0";
    let other = Version { major: 3, ..Version::ours() }.encode();
    for (command, payload) in [
        (Command::RESET, &[][..]),
        (Command::VERSION, json),
        (Command::VERSION, &other),
        (Command::VERSION, &[1]),
    ] {
        let mut client = raw(&served);
        client.send(5, command, COMMAND, payload);
        let (header, _) = client.next().unwrap();
        assert!(matches!(header.kind, Kind::Refusal(errno) if errno != 0), "{header:?}");
        thrown_out(&served, client);
    }
    let mut twice = greeted(&served);
    twice.send(2, Command::VERSION, COMMAND, &Version::ours().encode());
    thrown_out(&served, twice);
}

#[test]
fn requests_whose_payload_is_wrong_end_the_connection() {
    let served = Served::new();
    let access = RegionAccess { offset: 0.into(), region: 2.into(), count: 4.into() };
    for (command, payload) in [
        (Command::REGION_WRITE, [access.as_bytes(), &[1, 2, 3]].concat()),
        (Command::REGION_READ, access.as_bytes()[..12].to_vec()),
        (Command::DEVICE_INFO, vec![0; 15]),
        (Command::RESET, vec![0]),
    ] {
        let mut client = greeted(&served);
        served.seen();
        client.send(2, command, COMMAND, &payload);
        let (header, _) = client.next().unwrap();
        assert_eq!(header.kind, Kind::Refusal(22));
        assert!(served.seen().is_empty(), "the device is not bothered");
        thrown_out(&served, client);
    }
}

#[test]
fn what_is_not_known_is_refused_and_nothing_more() {
    let served = Served::new();
    let mut client = greeted(&served);
    for command in [Command(0), Command(15), Command::REGION_IO_FDS, Command(999)] {
        client.send(3, command, COMMAND, &[1, 2, 3]);
        let (header, _) = client.next().unwrap();
        assert_eq!((header.id, header.command, header.kind), (3, command, Kind::Refusal(95)));
    }
    let access = RegionAccess { offset: 0.into(), region: 2.into(), count: 0.into() };
    client.send(4, Command::REGION_READ, COMMAND, access.as_bytes());
    assert_eq!(client.next().unwrap().0.kind, Kind::Refusal(22));
}

#[test]
fn a_write_may_ask_for_no_reply() {
    let served = Served::new();
    let mut client = greeted(&served);
    let access = RegionAccess { offset: 4.into(), region: 2.into(), count: 2.into() };
    let write = [access.as_bytes(), &[0x34, 0x12]].concat();
    client.send(7, Command::REGION_WRITE, Kind::Command { no_reply: true }, &write);
    client.send(8, Command::REGION_READ, COMMAND, access.as_bytes());
    let (header, payload) = client.next().unwrap();
    assert_eq!((header.id, header.kind), (8, Kind::Reply));
    assert_eq!(payload[16..], [0x34, 0x12]);
}

#[test]
fn a_server_stops_though_a_client_holds_its_connection() {
    let mut served = Served::new();
    let mut client = greeted(&served);
    client.0.write_all(&[0; 9]).unwrap();
    let start = Instant::now();
    served.end();
    // It waits for the rest of a message, but 5 s at most.
    assert!(start.elapsed() < Duration::from_millis(4500), "{:?}", start.elapsed());
    assert!(client.next().is_none());
    assert!(!served.path.exists());
}
