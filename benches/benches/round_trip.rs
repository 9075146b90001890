//! An access that leaves the process: our vfio-user client and server on two ends of a socket, against a
//! bare echo of as many bytes on such a socket.
//!
//! * `in a row`: one access after another.
//! * `spaced`: 50 us between them, as between a guest's exits; the server has gone to sleep.
//!
//! Before criterion's own figures each pair is timed in alternation, and one line gives the ratio.

use std::hint::{black_box, spin_loop};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use trapline_devices::assigned::backend::Backend;
use trapline_devices::vfio_user::client::{Client, Settings};
use trapline_devices::vfio_user::server::{Description, RegionDescription, Server};
use trapline_io::device::Claims;
use trapline_io::{Device, Fault, Region, Width};

/// Bytes of a REGION_WRITE of one byte and of its answer.
const REQUEST: usize = 33;
const REPLY: usize = 32;
const GAP: Duration = Duration::from_micros(50);

/// Answers at once.
struct Null;

impl Device for Null {
    fn read(&mut self, _: Region, offset: u64, _: Width) -> Result<u64, Fault> {
        Ok(offset)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
}

/// One end of a socket whose other end a thread serves; the thread ends with it.
enum End {
    Client(Box<Client>),
    Echo(UnixStream),
}

struct Pair {
    end: Option<End>,
    thread: Option<JoinHandle<()>>,
}

impl Pair {
    fn client() -> Pair {
        let (ours, theirs) = UnixStream::pair().expect("a socket");
        let thread = std::thread::spawn(move || {
            let regions = vec![RegionDescription::registers(4096)];
            let server =
                Server::unbound(Description { regions, ..Description::default() }).expect("a server");
            let _ = server.serve(theirs, &mut Null);
        });
        let client = Client::over(ours, Settings::default()).expect("the server answers");
        Pair { end: Some(End::Client(Box::new(client))), thread: Some(thread) }
    }

    fn echo() -> Pair {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket");
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; REQUEST];
            while theirs.read_exact(&mut bytes).is_ok() && theirs.write_all(&bytes[..REPLY]).is_ok() {}
        });
        Pair { end: Some(End::Echo(ours)), thread: Some(thread) }
    }

    fn write(&mut self) {
        match &mut self.end {
            Some(End::Client(client)) => {
                client.write(Region::bar(0), 16, Width::B1, black_box(5)).expect("the server answers");
            }
            Some(End::Echo(socket)) => {
                let mut bytes = [0; REQUEST];
                socket.write_all(black_box(&bytes)).expect("the echo lives");
                socket.read_exact(&mut bytes[..REPLY]).expect("the echo lives");
            }
            None => {}
        }
    }

    /// How long `count` accesses take, without the gaps between them.
    fn time(&mut self, count: u64, gap: Duration) -> Duration {
        let mut sum = Duration::ZERO;
        for _ in 0..count {
            let start = Instant::now();
            self.write();
            sum += start.elapsed();
            let gap_from = Instant::now();
            while gap_from.elapsed() < gap {
                spin_loop();
            }
        }
        sum
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Median microseconds of an access by the client and by the bare echo, timed in turns.
fn in_turns(gap: Duration) -> [f64; 2] {
    const ROUNDS: usize = 101;
    const ACCESSES: u32 = 100;
    let mut pairs = [Pair::client(), Pair::echo()];
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (pair, times) in pairs.iter_mut().zip(&mut times) {
            times.push(pair.time(u64::from(ACCESSES), gap));
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2].as_secs_f64() * 1e6 / f64::from(ACCESSES)
    })
}

fn round_trips(criterion: &mut Criterion) {
    for (name, gap) in [("in a row", Duration::ZERO), ("spaced", GAP)] {
        let [client, echo] = in_turns(gap);
        println!("{name}: vfio-user {client:.1} us, bare echo {echo:.1} us, ratio {:.2}", client / echo);
        let mut group = criterion.benchmark_group(name);
        for (way, start) in [("vfio-user", Pair::client as fn() -> Pair), ("bare echo", Pair::echo)] {
            let mut pair = start();
            group.bench_function(way, |bencher| bencher.iter_custom(|count| pair.time(count, gap)));
        }
        group.finish();
    }
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
