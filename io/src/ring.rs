//! All that is asked of io_uring.
