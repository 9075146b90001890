//! The benchmarks of trapline, one file each in `benches/`: `cargo bench -p trapline-benches`.
//!
//! * `path`: one access from its trap to its answer, with a device that does nothing;
//! * `lookup`: the address space behind a reader's own view, and behind a lock;
//! * `queue`: the queue of a function against a locked `VecDeque`, with 1, 2 and 4 producers;
//! * `exit`: an empty trapped access of a guest, against a loop of KVM_RUN and nothing else.
