//! rtnetlink link messages.
