//! The thread that writes a trace: takes records out of their rings, puts them in order, makes text of them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use trapline_devices::assigned::is_foreign;
use trapline_io::space::{AddressSpace, EndpointId};
use trapline_io::stages::now;
use trapline_io::trace::{Filter, Lane, Record};
use trapline_io::{Address, Region};

use super::format::{Cast, Format, Lost, Mark};
use super::map::Map;
use super::probes::{Intake, News, Note};
use super::sink::Sink;

/// The longest sleep while records come, and while none do.
const BEAT: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_secs(1);

/// The most records that wait for an older one to be finished: 24 MiB.
const WAITING_MOST: usize = 1 << 18;
/// The most notes that wait likewise.
const NOTES_MOST: usize = 1024;
/// How much text goes to the file at a time.
const PIECE: usize = 1 << 18;

/// A ring, and how many losses of it have been told.
struct Source {
    whose: Lost,
    lane: Arc<Lane>,
    told: u64,
}

/// All that the thread owns.
pub(super) struct Writer {
    sources: Vec<Source>,
    notes: Receiver<Note>,
    lost_notes: Arc<AtomicU64>,
    told_notes: u64,
    filter: Arc<Filter>,
    stopping: Arc<AtomicBool>,
    /// What is taken and not yet written, sorted.
    waiting: Vec<Record>,
    /// Likewise, in the order in which they came.
    noted: VecDeque<Note>,
    page: Page,
}

impl Writer {
    pub(super) fn new(
        sink: Sink,
        format: Box<dyn Format>,
        cast: Cast,
        intake: Intake,
        stopping: Arc<AtomicBool>,
    ) -> Writer {
        let source = |(whose, lane)| Source { whose, lane, told: 0 };
        let page = Page {
            sink,
            format,
            cast,
            map: Map::default(),
            unseen: None,
            foreign: BTreeSet::new(),
            began: now(),
            text: Vec::new(),
        };
        Writer {
            sources: intake.lanes.into_iter().map(source).collect(),
            notes: intake.notes,
            lost_notes: intake.lost_notes,
            told_notes: 0,
            filter: intake.filter,
            stopping,
            waiting: Vec::new(),
            noted: VecDeque::new(),
            page,
        }
    }

    /// Writes until it is told to stop, then what is left.
    pub(super) fn run(mut self) {
        self.begin();
        loop {
            let last = self.stopping.load(Acquire);
            let busy = self.turn(last);
            if last {
                return self.page.finish();
            }
            std::thread::park_timeout(if busy { BEAT } else { IDLE });
        }
    }

    /// Writes the start of the file.
    pub(super) fn begin(&mut self) {
        self.page.begin();
    }

    /// Whether nothing more comes into the file.
    #[cfg(test)]
    pub(super) fn has_failed(&self) -> bool {
        self.page.sink.has_failed()
    }

    /// Takes all there is and writes what cannot be overtaken any more; tells whether there was anything.
    pub(super) fn turn(&mut self, last: bool) -> bool {
        // In this order: what an access that ends from here on has to say is younger than `horizon`.
        let begun = now();
        let under_way = self.sources.iter().filter_map(|source| source.lane.busy_since()).min();
        let horizon = if last { u64::MAX } else { under_way.map_or(begun, |since| since.min(begun)) };
        let before = self.waiting.len();
        for source in &self.sources {
            source.lane.take(source.lane.capacity(), |record| self.waiting.push(record));
        }
        while self.noted.len() < NOTES_MOST
            && let Ok(note) = self.notes.try_recv()
        {
            self.noted.push_back(note);
        }
        let taken = self.waiting.len() - before;
        // Each ring is sorted but for accesses that were under way, so this hardly compares.
        self.waiting.sort_by_key(Record::moment);
        let settled = self.waiting.partition_point(|record| record.moment() < horizon);
        let too_many = self.waiting.len().saturating_sub(WAITING_MOST);
        for record in self.waiting.drain(..settled.max(too_many)) {
            self.page.tell(&mut self.noted, record.moment());
            self.page.record(record, &self.filter);
        }
        self.page.tell(&mut self.noted, horizon);
        self.tell_losses();
        self.page.flush();
        taken > 0
    }

    fn tell_losses(&mut self) {
        for source in &mut self.sources {
            let lost = source.lane.lost();
            let news = lost.wrapping_sub(std::mem::replace(&mut source.told, lost));
            self.page.lost(source.whose, news);
        }
        let lost = self.lost_notes.load(Relaxed);
        let news = lost.wrapping_sub(std::mem::replace(&mut self.told_notes, lost));
        self.page.lost(Lost::Events, news);
    }
}

/// The text that grows, and what it is made with.
struct Page {
    sink: Sink,
    format: Box<dyn Format>,
    cast: Cast,
    map: Map,
    /// The newest map, which no access to memory has met yet, and since when it holds.
    unseen: Option<(u64, Arc<AddressSpace>)>,
    /// Overlays of which it was told that the guest sees another function by them.
    foreign: BTreeSet<(EndpointId, Region)>,
    /// The moment from which times count.
    began: u64,
    text: Vec<u8>,
}

impl Page {
    fn begin(&mut self) {
        self.format.begin(&self.cast, &mut self.text);
        self.flush();
    }

    /// Writes what was noted before `time`.
    fn tell(&mut self, noted: &mut VecDeque<Note>, time: u64) {
        while let Some(note) = noted.pop_front_if(|note| note.time < time) {
            let since = note.time.saturating_sub(self.began);
            match note.news {
                News::Map(space) => self.unseen = Some((since, space)),
                News::Mark(mark) => self.format.marked(since, mark, &self.cast, &mut self.text),
            }
        }
    }

    fn record(&mut self, mut record: Record, filter: &Filter) {
        if self.sink.has_failed() {
            return;
        }
        // Configuration accesses are what changes the map: they do not meet it.
        let configures = record.function.is_some() && record.access.region == Region::CONFIG;
        if !configures && !matches!(record.at, Some(Address::Port(_))) {
            self.follow_map();
        }
        if record.at.is_none()
            && let Some(function) = record.function
        {
            record.at = self.map.locate(function, record.access);
            if !filter.admits(record.at, record.access.width, Some((function, record.access.region))) {
                return;
            }
        }
        record.time = record.time.saturating_sub(self.began);
        if let Some(function) = record.function
            && is_foreign(record.access.region)
        {
            self.look_at_foreign(function, &record);
        }
        self.format.record(&record, &self.cast, &self.map, &mut self.text);
        if self.text.len() >= PIECE {
            self.flush();
        }
    }

    /// Tells of the first access to an overlay that shows another function's configuration space.
    fn look_at_foreign(&mut self, function: EndpointId, record: &Record) {
        let region = record.access.region;
        let is_pci = self.cast.function(function).is_some_and(|function| function.id.is_some());
        if is_pci && self.foreign.insert((function, region)) {
            let mark = Mark::Foreign(function, region);
            self.format.marked(record.moment(), mark, &self.cast, &mut self.text);
        }
    }

    fn follow_map(&mut self) {
        if let Some((since, space)) = self.unseen.take() {
            let change = self.map.follow(&space, &self.cast);
            self.format.mapped(since, &change, &self.cast, &self.map, &mut self.text);
        }
    }

    fn lost(&mut self, whose: Lost, count: u64) {
        if count > 0 {
            let time = now().saturating_sub(self.began);
            self.format.lost(time, whose, count, &self.cast, &mut self.text);
        }
    }

    fn flush(&mut self) {
        self.sink.append(&mut self.text, self.format.footer());
    }

    fn finish(mut self) {
        self.follow_map();
        self.flush();
        self.sink.finish(self.format.footer());
    }
}
