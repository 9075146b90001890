//! The doorbell and the completion under every order of two threads' steps.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p trapline-io --release --test loom_doorbell`
#![cfg(loom)]

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use trapline_io::completion::Completions;
use trapline_io::doorbell::Doorbell;
use trapline_io::queue::CallerId;

/// The worker announces its sleep and looks; the pusher pushes and rings. Were one of the fences
/// missing, the worker would sleep for ever and loom would report the deadlock.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let bell = Arc::new(Doorbell::new().unwrap());
        let pushed = Arc::new(AtomicU64::new(0));
        bell.awake();
        let pusher = {
            let (bell, pushed) = (Arc::clone(&bell), Arc::clone(&pushed));
            thread::spawn(move || {
                for n in 1..=2 {
                    pushed.store(n, Ordering::Relaxed);
                    assert!(bell.ring());
                }
            })
        };
        while pushed.load(Ordering::Relaxed) < 2 {
            bell.sleep();
            if pushed.load(Ordering::Relaxed) < 2 {
                bell.wait();
            }
            bell.awake();
        }
        pusher.join().unwrap();
    });
}

/// The worker leaves while somebody pushes: either its last look finds the push, or the pusher learns
/// that nobody will.
#[test]
fn who_leaves_breaks_no_promise() {
    loom::model(|| {
        let bell = Arc::new(Doorbell::new().unwrap());
        let pushed = Arc::new(AtomicU64::new(0));
        bell.awake();
        let pusher = {
            let (bell, pushed) = (Arc::clone(&bell), Arc::clone(&pushed));
            thread::spawn(move || {
                pushed.store(1, Ordering::Relaxed);
                bell.ring()
            })
        };
        bell.leave();
        let found = pushed.load(Ordering::Relaxed) == 1;
        let promised = pusher.join().unwrap();
        assert!(found || !promised);
    });
}

/// Each answer is taken exactly once and is the right one, whether the caller sleeps or not.
#[test]
fn an_answer_comes_exactly_once() {
    loom::model(|| {
        let completions = Completions::new(1);
        let asked = Arc::new(AtomicU64::new(0));
        let owner = {
            let (completions, asked) = (completions.clone(), Arc::clone(&asked));
            thread::spawn(move || {
                for n in 1..=2 {
                    while asked.load(Ordering::Acquire) < n {
                        thread::yield_now();
                    }
                    completions.of(CallerId(0)).unwrap().complete(10 * n);
                }
            })
        };
        let completion = completions.of(CallerId(0)).unwrap();
        for n in 1..=2 {
            completion.begin();
            asked.store(n, Ordering::Release);
            assert_eq!(completion.wait(), 10 * n);
            assert_eq!(completion.poll(), None);
        }
        owner.join().unwrap();
    });
}
