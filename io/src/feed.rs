//! Writes that the kernel has collected, on their way into the queue of the function they are for.
//!
//! KVM keeps them in one ring per machine, which holds only writes for the legacy ranges of the
//! function that legacy VGA leads to. Whoever makes an access to that function takes them out
//! first, and so does a clock, since a guest that only writes never exits.
//!
//! # Nothing is overtaken
//!
//! A write is in the ring before its maker goes on, and the ring has one order. To take a write out
//! and to push it into the queue is one step under a lock, so the queue gets that order. Who comes
//! later and finds the ring empty may go on without that lock, but only after a second look: the taker
//! *announces itself before it takes*, so somebody who sees that a write is gone also sees either the
//! announcement, and waits for the lock, or the end of the step, and then the write is in the queue
//! (`Feed::is_idle`). `tests/loom_feed.rs` tries the orders.
//!
//! When the queue is full the write that found no room stays here, before all that is in the ring.
//! The lock is let go, the queue drained, the rest taken then. While something stays here nobody
//! begins an access to the function without trying to push it first, so room that was made is not
//! taken away again and again: each thread that was past that point has one access at most. And a
//! caller takes no more than [`RING`] writes, among which are all that were there when it came: a guest
//! that keeps writing keeps nobody for ever.
//!
//! # The lock
//!
//! It is held for a few instructions a write, never while somebody waits or a device works, and its
//! owner never asks for a token; the owner of a token may ask for it. So it is a spin lock in all but
//! one respect: a waiter that has spun for some time sleeps, since the owner was then preempted.

use std::sync::atomic::AtomicU64 as Counter;
use std::sync::atomic::Ordering::Relaxed;

use crate::access::{Access, Address, Op, Region, Trap, Width};
use crate::addr::{Gpa, Port};
use crate::publish::{Published, Reader};
use crate::space::{AddressSpace, ConfigLatch, EndpointId, Resolved};
use crate::sync::{AtomicU32, Mutex, Ordering};

/// No ring holds as many writes. KVM's has 169 places, one page of entries but one; and an entry that it cut at the end
/// of a page, of 3, 5, 6 or 7 bytes, is taken out in four at most.
pub const RING: usize = 4 * 170;

/// The kernel's ring. Its entries are taken by one thread at a time.
pub trait Collected: Send + Sync {
    /// Whether nothing is there: one load or two, no more. Sees every write that this thread knows to
    /// have been made; and if it does not see one because [`Collected::pop`] took it, then it also
    /// sees what the thread that took it had done before (a release by `pop`, an acquire here).
    fn is_empty(&self) -> bool;

    /// Takes the oldest write. Never blocks.
    fn pop(&self) -> Option<Trap>;
}

/// Writes may be in the ring.
const ACTIVE: u32 = 1;
/// Somebody takes writes out right now.
const BUSY: u32 = 2;
/// A write was taken out and found no room.
const LEFT: u32 = 4;

/// The kernel's ring, and a function that its writes may be for. One per function with a legacy window, over one
/// ring, of which one is active at a time; see [`crate::endpoint::Endpoint::feed_from`].
pub struct Feed {
    ring: Box<dyn Collected>,
    owner: EndpointId,
    /// Changed only under `hand`.
    state: AtomicU32,
    hand: Mutex<Hand>,
    collected: Counter,
    strays: Counter,
}

/// What belongs to whoever takes writes out.
struct Hand {
    space: Reader,
    left: Option<Rest>,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Feed {
    /// An inactive feed of `owner` from `ring`. Each write goes where `space` says at the time when it
    /// is taken out, so whoever is about to publish a table that takes a range away from the owner
    /// drains its endpoint before.
    pub fn new(ring: Box<dyn Collected>, space: &Published, owner: EndpointId) -> Feed {
        Feed {
            ring,
            owner,
            state: AtomicU32::new(0),
            hand: Mutex::new(Hand { space: space.reader(), left: None }),
            collected: Counter::new(0),
            strays: Counter::new(0),
        }
    }

    /// Whether the ring is to be looked at from now on. Changes only while all vCPUs are parked; before
    /// the feed becomes inactive the kernel stops collecting and the owner's endpoint is drained.
    pub fn set_active(&self, active: bool) {
        let _hand = self.hand.lock();
        let others = self.state.load(Ordering::Relaxed) & !ACTIVE;
        self.state.store(if active { others | ACTIVE } else { others }, Ordering::Release);
    }

    /// Whether the ring is looked at.
    pub fn is_active(&self) -> bool {
        self.state.load(Ordering::Relaxed) & ACTIVE != 0
    }

    /// How many writes were taken out of the ring so far.
    pub fn collected(&self) -> u64 {
        self.collected.load(Relaxed)
    }

    /// How many writes, or parts of one, were dropped since another function answers at their address.
    /// (What nobody decodes any more is dropped too, as a trapped write there would be.)
    pub fn strays(&self) -> u64 {
        self.strays.load(Relaxed)
    }

    /// Whether every write that this thread knows of is in the queue. A few loads.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        match self.state.load(Ordering::Acquire) {
            0 => true,
            // The second look at the state comes after the look at the ring: see the module's page.
            ACTIVE => self.ring.is_empty() && self.state.load(Ordering::Acquire) == ACTIVE,
            _ => false,
        }
    }

    /// Takes writes out and gives them to `push`, oldest first, until nothing is there or `budget`
    /// writes were taken, and takes those off the budget. False if `push` refused one, which is then
    /// kept for the next caller. `push` must neither wait nor touch a device.
    pub(crate) fn collect(&self, budget: &mut usize, mut push: impl FnMut(Access) -> bool) -> bool {
        let mut hand = self.hand.lock();
        let active = self.state.load(Ordering::Relaxed) & ACTIVE;
        self.state.store(active | BUSY, Ordering::Release);
        let whole = self.take(&mut hand, active != 0, budget, &mut push);
        let left = if hand.left.is_some() { LEFT } else { 0 };
        self.state.store(active | left, Ordering::Release);
        whole
    }

    fn take(
        &self,
        hand: &mut Hand,
        active: bool,
        budget: &mut usize,
        push: &mut impl FnMut(Access) -> bool,
    ) -> bool {
        let space = hand.space.space();
        while *budget > 0 {
            let kept = hand.left.take();
            let Some(mut rest) = kept.or_else(|| self.pop(active)) else { break };
            if !self.push_parts(&mut rest, space, push) {
                hand.left = Some(rest);
                return false;
            }
            *budget -= 1;
        }
        true
    }

    fn pop(&self, active: bool) -> Option<Rest> {
        let write = if active { self.ring.pop()? } else { return None };
        count(&self.collected);
        Some(Rest { write, done: 0 })
    }

    /// Pushes what is left of one write, in as many parts as the table demands.
    fn push_parts(
        &self,
        rest: &mut Rest,
        space: &AddressSpace,
        push: &mut impl FnMut(Access) -> bool,
    ) -> bool {
        while let Some((width, resolved)) = rest.resolve(space) {
            match resolved {
                Resolved::Access { endpoint, access, .. }
                    if endpoint == self.owner && access.region != Region::CONFIG =>
                {
                    if !push(access) {
                        return false;
                    }
                }
                Resolved::Unclaimed => {}
                _ => {
                    count(&self.strays);
                }
            }
            rest.done += width.bytes();
        }
        true
    }
}

/// Adds one to a counter that is written under the lock alone.
fn count(counter: &Counter) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

/// What is still to be pushed of a write that was taken out.
struct Rest {
    write: Trap,
    /// How many of its bytes are dealt with.
    done: usize,
}

impl Rest {
    /// Where the next part of the write leads, and how wide that is; nothing if there is no more. A
    /// write across the end of a range is cut as that of a vCPU is ([`crate::path`]): in halves, the
    /// lower first.
    fn resolve(&self, space: &AddressSpace) -> Option<(Width, Resolved)> {
        // The ring holds no write to the latch, and if it did it would change nothing.
        let latch = ConfigLatch::default();
        let mut width = self.write.width;
        loop {
            let fits = self.done.is_multiple_of(width.bytes());
            if fits && self.done + width.bytes() <= self.write.width.bytes() {
                let resolved = space.resolve(self.part(width)?, &latch);
                if resolved != Resolved::Split {
                    return Some((width, resolved));
                }
            }
            width = width.half()?;
        }
    }

    /// `width` bytes behind those dealt with. None of a read, which is none of the ring's, and behind
    /// the end of the space, where nothing answers.
    fn part(&self, width: Width) -> Option<Trap> {
        let Op::Write(value) = self.write.op else { return None };
        let at = match self.write.at {
            Address::Port(Port(port)) => {
                Address::Port(Port(port.checked_add(u16::try_from(self.done).ok()?)?))
            }
            Address::Gpa(Gpa(gpa)) => Address::Gpa(Gpa(gpa.checked_add(self.done as u64)?)),
        };
        let value = value >> (8 * self.done);
        Some(Trap { at, width, op: Op::Write(value & width.all_ones()) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
