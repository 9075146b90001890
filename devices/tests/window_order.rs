//! scratch
#[path = "window/order.rs"]
mod order;
