//! Writes for which our client does not wait.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use trapline_devices::assigned::Backend;
use trapline_devices::vfio_user::Client;
use trapline_devices::vfio_user::client::Settings;
use trapline_devices::vfio_user::wire::{Command, HEADER, Header, Kind};
use trapline_io::{Access, Fault, Op, Region, Width};

#[path = "vfio_user_toy/device.rs"]
mod toy;
use toy::{Reports, Served};

const BAR: Region = Region(2);
/// For a server that answers or hangs up, however late the threads between run.
const PATIENT: Duration = Duration::from_secs(20);

/// What goes wrong between a client and its server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Nothing.
    Straight,
    /// Whoever asks for no reply gets one.
    Answered,
    /// Writes that ask for no reply end here.
    Mute,
}

/// A client of `served`, over a line that tells of each message the command and whether it wants an answer.
fn over_a_line(served: &Served, way: Way) -> (Client, Receiver<(Command, bool)>, Arc<Reports>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = UnixStream::connect(&served.path).unwrap();
    let (say, said) = channel();
    let (mut from, mut to) = (theirs.try_clone().unwrap(), server.try_clone().unwrap());
    let mut back = theirs.try_clone().unwrap();
    std::thread::spawn(move || {
        while let Some((header, payload)) = message(&mut from) {
            let silent = header.kind == Kind::Command { no_reply: true };
            let _ = say.send((header.command, silent));
            match way {
                Way::Mute if silent => continue,
                Way::Answered if silent => {
                    let reply = Header::new(header.id, header.command, Kind::Reply, 16).encode();
                    back.write_all(&[&reply[..], &payload[..16]].concat()).unwrap();
                }
                _ => {}
            }
            if to.write_all(&[&header.encode()[..], &payload].concat()).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let (mut from, mut to) = (server, theirs);
    std::thread::spawn(move || {
        while let Some((header, payload)) = message(&mut from) {
            if to.write_all(&[&header.encode()[..], &payload].concat()).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let reports = Arc::new(Reports::default());
    let settings = Settings { name: "toy".into(), deadline: PATIENT, events: Some(reports.clone()) };
    let client = Client::over(ours, settings).unwrap();
    said.try_iter().for_each(drop);
    (client, said, reports)
}

/// The next message; `None` at the end. Descriptors are left behind.
fn message(from: &mut UnixStream) -> Option<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER];
    from.read_exact(&mut bytes).ok()?;
    let header = Header::decode(bytes).ok()?;
    let mut payload = vec![0; header.payload()];
    from.read_exact(&mut payload).ok()?;
    Some((header, payload))
}

/// How many of the messages so far were writes that ask for no reply, and how many any others.
fn counted(said: &Receiver<(Command, bool)>) -> (usize, usize) {
    let (silent, others): (Vec<_>, Vec<_>) = said.try_iter().partition(|(_, silent)| *silent);
    assert!(silent.iter().all(|(command, _)| *command == Command::REGION_WRITE), "{silent:?}");
    (silent.len(), others.len())
}

#[test]
fn only_where_it_is_allowed_a_write_is_merely_sent() {
    let served = Served::new();
    let (mut client, said, _) = over_a_line(&served, Way::Straight);
    client.write(BAR, 0, Width::B4, 1).unwrap();
    assert_eq!(counted(&said), (0, 1));
    client.post(true);
    client.write(BAR, 0, Width::B4, 2).unwrap();
    client.write(Region::VGA, 0x3c0, Width::B1, 3).unwrap();
    client.write_bytes(Region::VGA, 0xb_8000, &[7; 160]).unwrap();
    client.settle();
    assert_eq!(counted(&said), (3, 1));
    // Nothing is under way: nobody is asked.
    client.settle();
    // Configuration space changes what is decoded.
    client.write(Region::CONFIG, 4, Width::B2, 2).unwrap();
    assert_eq!(counted(&said), (0, 1));
    client.write(BAR, 4, Width::B4, 4).unwrap();
    client.post(false);
    let seen = served.writes(BAR.0);
    assert_eq!(seen, [(0, 1), (0, 2), (4, 4)], "all have arrived when it ends");
    client.write(BAR, 0, Width::B4, 5).unwrap();
    assert_eq!(counted(&said), (1, 2));
}

#[test]
fn a_device_that_interrupts_by_its_line_is_waited_for() {
    let mut described = toy::description(toy::sealed());
    described.irqs[0] = trapline_devices::vfio_user::server::IrqType { count: 1, ..described.irqs[2] };
    let served = Served::with(described);
    // Descriptors do not go over the line.
    let mut client = Client::connect(&served.path, Settings::default()).unwrap();
    client.post(true);
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    client.enable_intx(event.as_fd(), event.as_fd()).unwrap();
    client.write(BAR, 8, Width::B4, 1).unwrap();
    assert_eq!(served.writes(BAR.0), [(8, 1)], "it has arrived when the write returns");
    client.disable_intx().unwrap();
}

#[test]
fn a_server_that_answers_what_needs_no_answer_is_put_up_with() {
    let served = Served::new();
    let (mut client, _, reports) = over_a_line(&served, Way::Answered);
    client.post(true);
    for round in 0..1000 {
        client.write(BAR, 0, Width::B4, round).unwrap();
    }
    assert_eq!(client.read(BAR, 0, Width::B4), Ok(999));
    client.settle();
    assert_eq!(reports.failures(), [""; 0]);
}

#[test]
fn a_server_that_takes_nothing_any_more_is_noticed() {
    let mut served = Served::new();
    let (mut client, _, reports) = over_a_line(&served, Way::Straight);
    client.post(true);
    served.end();
    let start = Instant::now();
    while client.write(BAR, 0, Width::B4, 1).is_ok() {
        client.settle();
        assert!(start.elapsed() < PATIENT, "it was waited for");
    }
    assert!(client.is_dead());
    assert_eq!(client.write(BAR, 0, Width::B4, 1), Err(Fault::Failed));
    assert_eq!(reports.failures().len(), 1);
}

#[test]
fn a_few_are_under_way_and_no_more() {
    let served = Served::new();
    let (mut client, said, _) = over_a_line(&served, Way::Mute);
    client.post(true);
    for _ in 0..1000 {
        client.write(BAR, 0, Width::B4, 0).unwrap();
    }
    let (_, others) = counted(&said);
    assert_eq!(others, 1000 / 129, "each of these was waited for");
}

proptest! {
    /// The device sees everything, in order, whatever was waited for.
    #[test]
    fn nothing_overtakes_a_write(steps in prop::collection::vec((0..6_u8, 0..16_u64, any::<u32>()), 1..200)) {
        let served = Served::new();
        let mut client = Client::connect(&served.path, Settings::default()).unwrap();
        served.seen();
        let mut expected = Vec::new();
        for (what, at, value) in steps {
            let (bar, value) = (4 * at, u64::from(value));
            match what {
                0 => client.post(value % 2 == 0),
                1 => {
                    let last = expected.iter().rev().find_map(|access: &Access| match access.op {
                        Op::Write(value) if (access.region, access.offset) == (BAR, bar) => Some(value),
                        _ => None,
                    });
                    prop_assert_eq!(client.read(BAR, bar, Width::B4), Ok(last.unwrap_or(0)));
                    expected.push(Access::read(BAR, bar, Width::B4));
                }
                2 => {
                    client.write(Region::VGA, 0x3c0 + at, Width::B1, value & 0xff).unwrap();
                    expected.push(Access::write(Region::VGA, 0x3c0 + at, Width::B1, value & 0xff));
                }
                _ => {
                    client.write(BAR, bar, Width::B4, value).unwrap();
                    expected.push(Access::write(BAR, bar, Width::B4, value));
                }
            }
        }
        client.post(false);
        let mut seen = served.seen();
        seen.retain(|access| access.region != Region::CONFIG);
        prop_assert_eq!(seen, expected);
    }
}
