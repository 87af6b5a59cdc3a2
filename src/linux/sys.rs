//! System calls that rustix lacks.
