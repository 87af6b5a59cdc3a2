//! The WireServer's goal state document.
