//! Waiting for events, with a deadline.
