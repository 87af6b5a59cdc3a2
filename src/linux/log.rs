//! Lines for the person at the console.
